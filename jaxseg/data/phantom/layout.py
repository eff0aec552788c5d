"""Layouts of the phantom: EMIDEC folders, or an nnU-Net data set with its own labels.

The nnU-Net layout presents the same cohort as another pathology, scar inside edema: infarct becomes
edema, no-reflow becomes scar. Like another data set, it orders its label values differently and has
an affine that states the spacing.
"""

import gzip
import json
from pathlib import Path

import nibabel as nib
import numpy as np

LAYOUTS = ("emidec", "nnunet")

# Label names by value in the nnU-Net layout, and its value for each of EMIDEC's labels 0 to 4.
NNUNET_LABELS = ("background", "myocardium", "cavity", "scar", "edema")
NNUNET_VALUES = (0, 2, 1, 4, 3)


def case_files(root: Path, name: str, layout: str) -> tuple[Path, Path]:
    """Paths of the image and the label file of a case; `layout` is one of `LAYOUTS`."""
    if layout == "nnunet":
        return root / "imagesTr" / f"{name}_0000.nii.gz", root / "labelsTr" / f"{name}.nii.gz"
    folder = root / f"Case_{name}"
    file = f"Case_{name}.nii.gz"
    return folder / "Images" / file, folder / "Contours" / file


def write_case(
    root: Path,
    name: str,
    image: np.ndarray,
    label: np.ndarray,
    spacing: tuple[float, float, float],
    *,
    layout: str,
) -> None:
    """Write one case, gzip-compressed without a time stamp.

    Args:
      root: folder of the cohort.
      name: case name.
      image: (X, Y, slices) int16.
      label: (X, Y, slices) uint8 with EMIDEC's labels 0 to 4.
      spacing: voxel size in mm.
      layout: one of `LAYOUTS`.
    """
    # As in the EMIDEC release, the affine does not contain the spacing; only pixdim does.
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    if layout == "nnunet":
        label = np.array(NNUNET_VALUES, np.uint8)[label]
        affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
    for path, array in zip(case_files(root, name, layout), (image, label), strict=True):
        volume = nib.Nifti1Image(array, affine)
        volume.header.set_zooms(spacing)
        volume.header.set_xyzt_units("mm")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress(volume.to_bytes(), compresslevel=4, mtime=0))


def write_description(root: Path, num_cases: int, *, layout: str) -> None:
    """Write the metadata file of the layout: `dataset.json` for nnU-Net, none for EMIDEC."""
    if layout != "nnunet":
        return
    fields = {
        "channel_names": {"0": "LGE"},
        "labels": {name: value for value, name in enumerate(NNUNET_LABELS)},
        "numTraining": num_cases,
        "file_ending": ".nii.gz",
    }
    (root / "dataset.json").write_text(json.dumps(fields, indent=2) + "\n")
