"""Anatomy-prior U-net for cardiac pathology segmentation (Zhou et al., EMIDEC 2020) in JAX."""
