"""Train a network from a config: training loop, validation, resuming and fine-tuning."""
