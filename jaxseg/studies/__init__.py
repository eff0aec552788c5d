"""Studies of several runs: the ablation of the paper's Table 1 and cross-validation."""
