"""From a config to a trained network: the loop, its validation, resuming and fine-tuning."""
