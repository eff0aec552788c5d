"""Synthetic short-axis stacks with known labels."""
