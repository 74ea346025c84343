"""Helpers that know nothing of LLMs."""
