"""The ablation study of the paper's Table 1: its stages, statistics and report."""
