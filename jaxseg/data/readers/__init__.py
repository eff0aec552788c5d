"""Folders of cases in the layouts that data sets come in."""
