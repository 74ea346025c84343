"""The app: it sorts the messages that customers send."""

LABELS = ("praise", "complaint", "question")


def label(reply):
    """The label that a model's reply names; None where it names none."""
    return next((label for label in LABELS if label in reply.lower()), None)
