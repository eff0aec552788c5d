"""Stage 2 of Table 1: baseline plus attention blocks.

Paper, validation slices: LV 0.962, Myo 0.900, Inf 0.718, NoR 0.354.
    python main.py --config=configs/attention.py                                   # phantom
    python main.py --config=configs/attention.py:emidec --config.data.root=DIR     # EMIDEC
"""

from ml_collections import ConfigDict

from configs import baseline


def get_config(variant: str = "phantom") -> ConfigDict:
    config = baseline.get_config(variant)
    config.update_from_flattened_dict({"name": "attention", "model.attention": True})
    return config
