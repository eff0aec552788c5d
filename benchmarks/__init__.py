"""Benchmark of jaxseg and its PyTorch twin: `python -m benchmarks.run`."""
