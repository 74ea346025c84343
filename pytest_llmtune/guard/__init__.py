"""The regression check: evaluation, lock file, gates and verdict."""
