"""Lock files from one commit to the next: compare two states, walk the history, comment on a pull request."""
