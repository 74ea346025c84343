"""Lock files over git history: compare two states, list the history, comment on a pull request."""
