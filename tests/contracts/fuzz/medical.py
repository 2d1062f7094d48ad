"""The readers of medical formats, which need the packages that read and write them."""

import numpy as np

from tests.contracts.fuzz.checks import whole_item

SHAPE = (2, 8, 10)
HU = np.random.default_rng(0).integers(-1000, 2000, SHAPE).astype(np.int16)
TASK = "Task09_Spleen"


def readers():
    """Name, how to write, how to read."""
    return [
        ("DICOM", _write_series, _read_series),
        ("DICOM packed", _write_packed, _read_series),
        ("DICOM masks", _write_masks, _read_series),
        ("NIfTI", _write_volumes, _read_volumes),
        ("Decathlon", _write_task, _read_task),
    ]


def _write_series(folder):
    from tests.data.medical.ct_files import filled, grid, write_series

    write_series(folder, filled(grid(SHAPE), HU))


def _write_packed(folder):
    import pydicom

    from tests.data.medical.ct_files import filled, grid, write_series

    image = filled(grid((1, 32, 32)), HU.repeat(4, 1).repeat(4, 2)[:1, :32, :32])
    (path,) = write_series(folder, image, series="2", names="rle{:04d}.dcm")
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(path)
    write_series(folder, image, series="3", names="j2k{:04d}.dcm", compressor="JPEG2000")


def _write_masks(folder):
    from tests.data.medical.ct_files import filled, grid, write_segmentation, write_series
    from tests.data.picture_files import write_png

    image = filled(grid(SHAPE), HU)
    write_series(folder, image)
    marked = HU[0] > 0
    write_segmentation(folder / "seg.dcm", image, [(marked, 0, 1), (~marked, 1, 1)])
    write_png(folder / "0001.png", marked.astype(np.uint8))
    _save(folder / "0002.nii.gz", filled(grid(SHAPE), (HU > 0).astype(np.uint8)))


def _read_series(folder):
    from attribguard.data import read_slices

    data = read_slices(folder, size=6, window=(40, 400), on_error="skip", cache=folder.parent / "cache")
    for index in range(len(data)):
        whole_item(data[index])


def _save(path, image):
    import SimpleITK as sitk  # noqa: N813 (as everybody calls it)

    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def _write_volumes(folder):
    from tests.data.medical.ct_files import filled, grid

    _save(folder / "plain.nii", filled(grid(SHAPE), HU))
    _save(folder / "packed.nii.gz", filled(grid(SHAPE), HU.astype(np.float32)))


def _read_volumes(folder):
    from attribguard.data.medical.nifti import Shelf, open_volume

    for path in sorted(folder.glob("[!.]*")):
        volume = open_volume(path)
        volume.read_through()
        plane = volume.cut(Shelf()(volume), 0, (1, -1), (0, 1))
        assert np.isfinite(plane).all() and np.isfinite(volume.spacing).all()


def _write_task(folder):
    import json

    from tests.data.medical.ct_files import filled, grid

    entries = []
    for number in range(2):
        _save(folder / TASK / "imagesTr" / f"{number}.nii.gz", filled(grid(SHAPE), HU))
        _save(folder / TASK / "labelsTr" / f"{number}.nii", filled(grid(SHAPE), (HU > 0).astype(np.uint8)))
        entries.append({"image": f"./imagesTr/{number}.nii.gz", "label": f"./labelsTr/{number}.nii.gz"})
    content = {"labels": {"0": "background", "1": "spleen"}, "training": entries}
    (folder / TASK / "dataset.json").write_text(json.dumps(content))


def _read_task(folder):
    from attribguard.data import MedicalDecathlon

    for plane in ("axial", "sagittal"):
        data = MedicalDecathlon(folder, TASK, plane, size=4, window=(40, 400), on_error="skip")
        for index in range(len(data)):
            whole_item(data[index])
