"""Series of DICOM files, written for tests from any stack."""

import numpy as np
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

# Along a row of pixels and along a column, towards left, posterior and superior: the usual oblique
# display of a short axis, with the right ventricle on the left.
ROW = np.array([0.72, 0.62, 0.312])
ROW = ROW / np.linalg.norm(ROW)
COLUMN = np.array([-0.16, 0.57, -0.8])
COLUMN = COLUMN - (COLUMN @ ROW) * ROW
COLUMN = COLUMN / np.linalg.norm(COLUMN)
ORIGIN = np.array([-40.0, -30.0, 25.0])
UID = "1.2.826.0.1.3680043.10.511."
PATIENT = "Doe^Jane^Quirin"


def affine_of(spacing):
    """The stack's affine in nibabel's coordinates: right, anterior, superior."""
    affine = np.eye(4)
    affine[:3, :3] = np.transpose([ROW, COLUMN, np.cross(ROW, COLUMN)]) * spacing
    affine[:3, 3] = ORIGIN
    return np.diag([-1, -1, 1, 1]) @ affine


def position(spacing, k):
    return (ORIGIN + k * spacing[2] * np.cross(ROW, COLUMN)).tolist()


def new_file(path, sop_class, instance, series, description):
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = sop_class, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = f"{UID}{series}.{instance}"
    data = FileDataset(path, {}, file_meta=meta, preamble=bytes(128))
    data.SOPClassUID, data.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    data.PatientName, data.PatientID = PATIENT, "ID-4711"
    data.StudyInstanceUID, data.SeriesInstanceUID = f"{UID}9", f"{UID}{series}"
    data.SeriesDescription, data.Modality = description, "MR"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 16
    data.HighBit, data.PixelRepresentation = 15, 0
    return data


def write_series(
    folder, image, spacing, *, series=1, description="LGE SAX", scaling=(1.0, 0.0), change=None
):
    """Write a stack (X, Y, slices) of whole values as a file per slice, in shuffled names.

    `change(data, k)` may edit the data set of slice k, or drop its file by returning False.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(series).permutation(1000)
    for k in range(image.shape[2]):
        data = new_file(folder, MRImageStorage, k + 1, series, description)
        stored = np.rint((image[..., k].T - scaling[1]) / scaling[0]).astype("<u2")
        data.Rows, data.Columns = stored.shape
        data.PixelData = np.ascontiguousarray(stored).tobytes()
        data.PixelSpacing = [float(spacing[1]), float(spacing[0])]
        data.SliceThickness = 5.0  # of a slice, without the gap to the next
        data.ImageOrientationPatient = [*ROW.tolist(), *COLUMN.tolist()]
        data.ImagePositionPatient = position(spacing, k)
        data.InstanceNumber = int(names[k])
        data.RescaleSlope, data.RescaleIntercept = scaling
        if change is None or change(data, k) is not False:
            suffix = ".dcm" if k % 2 else ""
            data.save_as(folder / f"IM{names[k]:04d}{suffix}", enforce_file_format=True)
    return folder


def write_enhanced(path, image, spacing):
    """Write a stack as the frames of one Enhanced MR file, from the last slice to the first."""
    data = new_file(path, EnhancedMRImageStorage, 1, 5, "LGE enhanced")
    pixels = np.ascontiguousarray(image.transpose(2, 1, 0)[::-1]).astype("<u2")
    data.NumberOfFrames, data.Rows, data.Columns = pixels.shape
    data.PixelData = pixels.tobytes()
    shared, frames = Dataset(), []
    measures, orientation, scaling = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing = [float(spacing[1]), float(spacing[0])]
    orientation.ImageOrientationPatient = [*ROW.tolist(), *COLUMN.tolist()]
    scaling.RescaleSlope, scaling.RescaleIntercept = 2.0, -1.0
    shared.PixelMeasuresSequence = Sequence([measures])
    shared.PlaneOrientationSequence = Sequence([orientation])
    shared.PixelValueTransformationSequence = Sequence([scaling])
    for k in reversed(range(len(pixels))):
        frame, plane = Dataset(), Dataset()
        plane.ImagePositionPatient = position(spacing, k)
        frame.PlanePositionSequence = Sequence([plane])
        frames.append(frame)
    data.SharedFunctionalGroupsSequence = Sequence([shared])
    data.PerFrameFunctionalGroupsSequence = Sequence(frames)
    data.save_as(path, enforce_file_format=True)
    return path
