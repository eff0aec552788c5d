"""Example for other data: scar inside edema inside myocardium, full method, nnU-Net's layout.

Use this file as a template for any other nested pathology: state its labels, inclusion pairs and
scored regions. No code changes. docs/how-to/own-data.md describes the layout of the data set.
    python main.py --config=configs/edema_scar.py                                      # phantom
    python main.py --config=configs/edema_scar.py:nnunet --config.data.root=DIR        # your cases

The phantom is that of the other configs, with infarct renamed to edema and no-reflow to scar.
"""

from typing import Any

from ml_collections import ConfigDict

from configs import awce_penalty

VARIANTS = ("phantom", "nnunet")


def get_config(variant: str = "phantom") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"config variant: expected one of {', '.join(VARIANTS)}, got {variant!r}")
    # For your cases, start from the protocol for EMIDEC: its grid, width and epochs.
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
    """Labels, inclusion pairs and regions of this pathology, to be changed for another one."""
    return {
        # In the order of the network's outputs: the background first, the innermost label last.
        # dataset.json defines the values in the files.
        "labels": ["background", "cavity", "myocardium", "edema", "scar"],
        # Eq. 5: scar lies inside edema, both inside the myocardium.
        "inclusions": [
            [["scar"], ["scar", "edema"]],
            [["scar", "edema"], ["scar", "edema", "myocardium"]],
        ],
        # Columns of the tables: single labels over slices, unions of labels over whole cases.
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
