"""Check a config and build a run's objects and data from it."""
