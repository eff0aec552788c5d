"""This project and its PyTorch twin, measured side by side: `python -m benchmarks.run`."""
