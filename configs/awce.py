"""Stage 3 of Table 1: attention plus automated weighted cross-entropy (Eq. 3).

Paper, validation slices: LV 0.971, Myo 0.926, Inf 0.769, NoR 0.535.
    python main.py --config=configs/awce.py                                        # phantom
    python main.py --config=configs/awce.py:emidec --config.data.root=DIR          # EMIDEC
"""

from ml_collections import ConfigDict

from configs import attention


def get_config(variant: str = "phantom") -> ConfigDict:
    config = attention.get_config(variant)
    config.update_from_flattened_dict({"name": "awce", "loss.weighted": True})
    return config
