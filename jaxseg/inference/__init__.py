"""Inference with trained networks: probabilities, label maps, output files and exported bundles."""
