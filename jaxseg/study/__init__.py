"""Studies of many runs, of which an ablation and a cross-validation are two: the runs, the work."""
