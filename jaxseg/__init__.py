"""Anatomy-prior U-net for cardiac pathology segmentation (Zhou et al., EMIDEC 2020) in JAX."""

__version__ = "0.1.0"
