"""The only place that reads a field of a config by its name."""
