"""Measures an agent over labelled questions: retrieval, answers, abstention, latency."""
