"""Readers for the folder layouts of public data sets."""
