"""Reading what servers say: bodies, answers, tokens."""
