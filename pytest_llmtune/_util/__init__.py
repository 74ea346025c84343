"""Small helpers that know nothing of language models."""
