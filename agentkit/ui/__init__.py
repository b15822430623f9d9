"""The terminal chat. `clean` and `commands` load no Textual: the plain line mode uses them too."""
