"""Many runs: the ablation of Table 1, cross-validation, their statistics."""
