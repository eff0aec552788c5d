"""The ablation study of the paper's Table 1: its runs, their statistics and its report."""
