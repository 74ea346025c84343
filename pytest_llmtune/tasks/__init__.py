"""Run an app's function, with every model call inside captured, priced, recorded and replayed."""
