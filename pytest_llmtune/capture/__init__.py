"""An app's own calls: recorded, replayed, metered, and kept from the network."""
