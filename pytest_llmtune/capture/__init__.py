"""Record, replay, meter and block an app's own calls."""
