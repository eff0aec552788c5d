"""Scores of cases: which cases, what of each, statistics, files."""
