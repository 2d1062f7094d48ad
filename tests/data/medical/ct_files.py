"""Writes small CT series with SimpleITK, and DICOM segmentations from the fields of the standard."""

import warnings

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 (as everybody calls it)
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

CT_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
SEG_STORAGE = "1.2.840.10008.5.1.4.1.1.66.4"
ROOT = "1.2.826.0.1.3680043.8.498."


def grid(shape, spacing=(0.5, 0.75, 2.0), origin=(-30.0, -20.0, 100.0), direction=None):
    """A SimpleITK image of zeros, (slices, rows, columns); spacing is that of columns, rows and slices, in mm."""
    image = sitk.Image([shape[2], shape[1], shape[0]], sitk.sitkInt16)
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    if direction is not None:
        image.SetDirection(np.ravel(direction).tolist())
    return image


def filled(like, values):
    image = sitk.GetImageFromArray(np.asarray(values))
    image.CopyInformation(like)
    return image


def write_series(
    folder, image, *, series="1", patient="p1", slope=1, intercept=0, compressor=None, names="{:04d}.dcm", **tags
):
    """One file a slice of a SimpleITK image of Hounsfield units. Returns the paths, in the order of the slices."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    if compressor is not None:
        writer.UseCompressionOn()
        writer.SetCompressor(compressor)
    turn = np.reshape(image.GetDirection(), (3, 3))
    paths = []
    for index in range(image.GetDepth()):
        one = image[:, :, index]
        position = image.TransformIndexToPhysicalPoint((0, 0, index))
        fields = {
            "0008|0016": CT_STORAGE,
            "0008|0018": f"{ROOT}{series}.{index + 1}",
            "0008|0060": "CT",
            "0010|0020": patient,
            "0020|000d": f"{ROOT}9",
            "0020|000e": f"{ROOT}{series}",
            "0020|0013": str(index + 1),
            "0020|0032": "\\".join(map(str, position)),
            "0020|0037": "\\".join(map(str, np.concatenate([turn[:, 0], turn[:, 1]]))),
            "0028|1052": str(intercept),
            "0028|1053": str(slope),
        } | tags
        for tag, value in fields.items():
            if value is not None:
                one.SetMetaData(tag, value)
        paths.append(folder / names.format(index + 1))
        writer.SetFileName(str(paths[-1]) if paths[-1].suffix == ".dcm" else f"{paths[-1]}.dcm")
        writer.Execute(one)
        if paths[-1].suffix != ".dcm":
            folder.joinpath(f"{paths[-1].name}.dcm").rename(paths[-1])
    return paths


def uid(index, series="1"):
    """The SOPInstanceUID that `write_series` gives to a slice."""
    return f"{ROOT}{series}.{index + 1}"


def edit(path, **elements):
    """Change elements of a DICOM file, or remove those that are None."""
    dataset = pydicom.dcmread(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values that are wrong on purpose
        change(dataset, elements)
        dataset.save_as(path)
    return path


def change(dataset, elements):
    for keyword, value in elements.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)


def item(**elements):
    """A dataset, to be an item of a sequence."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def write_segmentation(path, image, frames, *, series="1", labels=("hematoma",), most=None, source=uid, **changes):
    """A segmentation of the series that `write_series` made of `image`: BINARY, or FRACTIONAL up to `most`.

    `frames` are (mask, number of the slice, number of the segment) and are packed one after the other.
    """
    masks = np.stack([mask for mask, _, _ in frames])
    turn = np.reshape(image.GetDirection(), (3, 3))
    groups = [
        item(
            SegmentIdentificationSequence=Sequence([item(ReferencedSegmentNumber=segment)]),
            PlanePositionSequence=Sequence(
                [item(ImagePositionPatient=list(image.TransformIndexToPhysicalPoint((0, 0, index))))]
            ),
            DerivationImageSequence=Sequence(
                [
                    item(
                        SourceImageSequence=Sequence(
                            [item(ReferencedSOPClassUID=CT_STORAGE, ReferencedSOPInstanceUID=source(index, series))]
                        )
                    )
                ]
            ),
        )
        for _, index, segment in frames
    ]
    shared = item(
        PlaneOrientationSequence=Sequence(
            [item(ImageOrientationPatient=list(np.concatenate([turn[:, 0], turn[:, 1]])))]
        )
    )
    packed = np.packbits(masks.astype(bool).ravel(), bitorder="little") if most is None else masks.astype(np.uint8)
    content = packed.tobytes()
    dataset = item(
        SOPClassUID=SEG_STORAGE,
        SOPInstanceUID=generate_uid(entropy_srcs=[str(path)]),
        Modality="SEG",
        SegmentationType="BINARY" if most is None else "FRACTIONAL",
        Rows=masks.shape[1],
        Columns=masks.shape[2],
        NumberOfFrames=len(masks),
        SamplesPerPixel=1,
        PhotometricInterpretation="MONOCHROME2",
        BitsAllocated=1 if most is None else 8,
        BitsStored=1 if most is None else 8,
        HighBit=0 if most is None else 7,
        PixelRepresentation=0,
        SegmentSequence=Sequence(
            [item(SegmentNumber=number, SegmentLabel=label) for number, label in enumerate(labels, 1)]
        ),
        ReferencedSeriesSequence=Sequence([item(SeriesInstanceUID=f"{ROOT}{series}")]),
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(groups),
        PixelData=content + b"\0" * (len(content) % 2),
    )
    if most is not None:
        dataset.MaximumFractionalValue = most
    change(dataset, changes)
    dataset["PixelData"].VR = "OB"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path
