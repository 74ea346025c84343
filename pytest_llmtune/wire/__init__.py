"""Reads what servers say: bodies, usage, tokens."""
