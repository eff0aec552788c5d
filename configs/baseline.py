"""Stage 1 of Table 1: U-net with pathology mixup, cross-entropy.

Paper, validation slices: LV 0.955, Myo 0.871, Inf 0.622, NoR 0.246.
    python main.py --config=configs/baseline.py                                    # phantom
    python main.py --config=configs/baseline.py:emidec --config.data.root=DIR      # EMIDEC
"""

from ml_collections import ConfigDict

from configs import default


def get_config(variant: str = "phantom") -> ConfigDict:
    config = default.get_config(variant)
    config.name = "baseline"
    return config
