"""Stage 4 of Table 1: attention, AWCE and the neighborhood penalty (Eq. 4-5).

Paper, validation slices: LV 0.970, Myo 0.916, Inf 0.747, NoR 0.538.
    python main.py --config=configs/awce_penalty.py                                # phantom
    python main.py --config=configs/awce_penalty.py:emidec --config.data.root=DIR  # EMIDEC
"""

from ml_collections import ConfigDict

from configs import awce


def get_config(variant: str = "phantom") -> ConfigDict:
    config = awce.get_config(variant)
    config.update_from_flattened_dict({"name": "awce_penalty", "loss.penalty": 0.01})
    return config
