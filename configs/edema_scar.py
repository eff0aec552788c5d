"""Own data: the full method (stage 4) on scar inside edema inside myocardium, in nnU-Net's layout.

A pattern for any other inclusive pathology: name labels, inclusion pairs and scored regions here;
no code changes. docs/how-to/own-data.md says what the data set must look like.
    python main.py --config=configs/edema_scar.py                                      # phantom
    python main.py --config=configs/edema_scar.py:nnunet --config.data.root=DIR        # own cases

The phantom is that of the other configs, its infarct called edema and its no-reflow scar.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import awce_penalty

VARIANTS = ("phantom", "nnunet")


def get_config(variant: str = "phantom") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"config variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    # Own cases start from the protocol for EMIDEC's: its grid, width and epochs.
    config = awce_penalty.get_config("phantom" if variant == "phantom" else "emidec")
    config.update_from_flattened_dict(
        {
            "name": "edema_scar",
            "variant": variant,
            "data.layout": "nnunet",
            "data.split": "case",  # all slices of a patient on one side
            **{f"anatomy.{field}": value for field, value in anatomy().items()},
        }
    )
    return config


def anatomy() -> dict[str, Any]:
    """What the method knows about this pathology: the only part that another one must restate."""
    return {
        # In the order of the network's outputs: the background first, the innermost label last.
        # The values in the files are dataset.json's own.
        "labels": ["background", "cavity", "myocardium", "edema", "scar"],
        # Eq. 5: scar lies inside edema, both inside the myocardium.
        "inclusions": [
            [["scar"], ["scar", "edema"]],
            [["scar", "edema"], ["scar", "edema", "myocardium"]],
        ],
        # Columns of the tables: label by label over slices, as unions over whole cases.
        "slice_regions": [
            ["LV", ["cavity"]],
            ["Myo", ["myocardium"]],
            ["Edema", ["edema"]],
            ["Scar", ["scar"]],
        ],
        "case_regions": [
            ["Myocardium", ["myocardium", "edema", "scar"]],
            ["Edema with scar", ["edema", "scar"]],
            ["Scar", ["scar"]],
        ],
    }
