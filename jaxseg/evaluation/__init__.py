"""Scoring of held-out cases: which cases are scored, their statistics and the files written."""
