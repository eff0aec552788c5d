"""Read cases, preprocess them for training, and map predictions back onto the native grid."""

from jaxseg.data.case import Case, read_case
from jaxseg.data.cohort import Cohort, build_cohort
from jaxseg.data.grid import (
    Grid,
    label_shares_to_network,
    labeled_outside,
    labels_to_network,
    most_probable,
    probabilities_to_native,
    to_network,
)
from jaxseg.data.nifti import DataError, read_volume, voxel_spacing, write_like
from jaxseg.data.padding import tissue_of
from jaxseg.data.preprocess import Preprocessing, normalize, preprocess_case
from jaxseg.data.readers.emidec import find_cases, load_case
from jaxseg.data.split import split

__all__ = [
    "Case",
    "Cohort",
    "DataError",
    "Grid",
    "Preprocessing",
    "build_cohort",
    "find_cases",
    "label_shares_to_network",
    "labeled_outside",
    "labels_to_network",
    "load_case",
    "most_probable",
    "normalize",
    "preprocess_case",
    "probabilities_to_native",
    "read_case",
    "read_volume",
    "split",
    "tissue_of",
    "to_network",
    "voxel_spacing",
    "write_like",
]
