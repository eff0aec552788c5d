"""The folder of a run or bundle: config, data, checkpoints, metrics and provenance."""
