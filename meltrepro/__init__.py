"""Repeatable measurements of large language models on phones, edge boards and the host."""

__version__ = "0.1.0"
