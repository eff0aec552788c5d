"""One run's folder on disk: files, checkpoints, metrics, the meaning of its JSON."""
