"""An app's own model calls: record, replay, meter, and shut the network."""
