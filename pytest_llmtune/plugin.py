"""The pytest skin: hooks and fixtures, each a few lines."""
