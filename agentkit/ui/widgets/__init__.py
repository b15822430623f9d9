"""Widgets of the terminal chat. They post typed messages upwards and are called from above."""
