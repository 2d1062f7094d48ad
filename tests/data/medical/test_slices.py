import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from attribguard.data.medical.slices import read_slices
from attribguard.data.medical.window import ct_window
from attribguard.errors import DataError, RangeError

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK writes the files, and is not installed")
pydicom = pytest.importorskip("pydicom", reason="pydicom reads the files, and is not installed")

from tests.data.medical.ct_files import edit, filled, grid, write_series  # noqa: E402 (needs both)

SHAPE = (4, 5, 7)
HU = np.random.default_rng(0).integers(-1000, 2000, SHAPE).astype(np.int16)


def images(slices):
    return np.stack([item["image"][0].numpy() for item in slices])


@pytest.fixture
def ct():
    return filled(grid(SHAPE), HU)


def test_series_is_read_in_hounsfield_units_from_the_feet_to_the_head(tmp_path, ct):
    paths = write_series(tmp_path, ct)
    for number, (path, name) in enumerate(zip(paths, "cadb", strict=True)):
        edit(path, InstanceNumber=9 - number).rename(tmp_path / f"{name}.dcm")
    slices = read_slices(tmp_path)
    assert [item["file"] for item in slices] == ["c.dcm", "a.dcm", "d.dcm", "b.dcm"] == slices.files
    np.testing.assert_array_equal(images(slices), HU)
    item = slices[0]
    assert item["image"].dtype == item["mask"].dtype == torch.float32
    assert item["mask"].shape == (1, 5, 7) and item["mask"].all() and not item["annotated"]
    assert item["group"] == "p1" and "target" not in item


@pytest.mark.parametrize(
    ("turn", "order"),
    [
        (np.eye(3), 1),
        (np.diag([1, -1, -1]), 1),  # head first becomes feet first: the normal turns with the rows
        (np.array([[0, 0, 1], [1, 0, 0], [0, 1, 0]]), 1),  # sagittal
        (np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]]), 1),  # a tilted gantry
        (np.diag([1, 1, -1]), -1),  # stored from the head to the feet
    ],
)
def test_slices_are_sorted_along_their_normal(tmp_path, turn, order):
    ct = filled(grid(SHAPE, direction=np.asarray(turn, float)), HU)
    for path in write_series(tmp_path, ct):
        edit(path, InstanceNumber=1)
    np.testing.assert_array_equal(images(read_slices(tmp_path)), HU[::order])


@pytest.mark.parametrize("lost", ["ImagePositionPatient", "ImageOrientationPatient", "not parallel"])
def test_series_without_places_is_sorted_by_instance_number(tmp_path, ct, lost):
    paths = write_series(tmp_path, ct, names="{}.dcm")
    for path, number in zip(paths, (30, 10, 40, 20), strict=True):
        edit(path, InstanceNumber=number)
    edit(paths[2], **({lost: None} if lost.startswith("Image") else {"ImageOrientationPatient": [0, 1, 0, 1, 0, 0]}))
    np.testing.assert_array_equal(images(read_slices(tmp_path)), HU[[1, 3, 0, 2]])


def test_rescale_slope_and_intercept_are_applied(tmp_path, ct):
    doubled = filled(ct, HU // 2 * 2)
    paths = write_series(tmp_path, doubled, slope=2, intercept=-1024)
    assert pydicom.dcmread(paths[0]).pixel_array.min() >= 0  # so that what is stored is something else
    np.testing.assert_array_equal(images(read_slices(tmp_path)), sitk.GetArrayFromImage(doubled))
    edit(paths[3], RescaleSlope="0.5", RescaleIntercept="-0.25")
    stored = (HU[3] // 2 * 2 + 1024) // 2
    np.testing.assert_array_equal(images(read_slices(tmp_path))[3], stored * np.float32(0.5) - np.float32(0.25))


def test_monochrome1_changes_how_values_are_shown_and_not_what_they_mean(tmp_path, ct):
    for path in write_series(tmp_path, ct):
        edit(path, PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(images(read_slices(tmp_path)), HU)


def test_bits_above_those_that_are_stored_are_not_read(tmp_path, ct):
    values = HU.clip(0, 2000)
    paths = write_series(tmp_path, filled(ct, values.astype(np.uint16)))
    for path, stored in zip(paths, values, strict=True):
        overlaid = stored.astype("<u2") | np.uint16(0x9000)
        edit(path, BitsStored=12, HighBit=11, PixelData=overlaid.tobytes())
    np.testing.assert_array_equal(images(read_slices(tmp_path)), values)


@pytest.mark.parametrize("compression", ["JPEG2000", "RLE"])
def test_lossless_compression_is_undone(tmp_path, compression):
    values = np.tile(HU, (1, 10, 10))  # GDCM does not compress the smallest images
    ct = filled(grid(values.shape), values)
    paths = write_series(tmp_path, ct, compressor="JPEG2000" if compression == "JPEG2000" else None)
    if compression == "RLE":
        for path in paths:
            dataset = pydicom.dcmread(path)
            dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
            dataset.save_as(path)
    assert pydicom.dcmread(paths[0]).file_meta.TransferSyntaxUID.is_compressed
    np.testing.assert_array_equal(images(read_slices(tmp_path)), values)


def test_slice_of_a_scanner_is_read_as_simpleitk_reads_it(tmp_path):
    path = shutil.copy(pydicom.data.get_testdata_file("CT_small.dcm"), str(tmp_path))
    [item] = read_slices(tmp_path)
    np.testing.assert_array_equal(item["image"], sitk.GetArrayFromImage(sitk.ReadImage(path)))


def test_series_and_patients_follow_each_other_by_their_first_file(tmp_path, ct):
    write_series(tmp_path / "b", ct, series="1", patient="second")
    write_series(tmp_path / "a" / "deep", ct, series="2", patient="first", names="1.2.840.{}")
    write_series(tmp_path / "a" / "flat", ct, series="3", patient="", names="{}")
    slices = read_slices(tmp_path)
    assert slices.groups == ["first"] * 4 + [""] * 4 + ["second"] * 4
    assert slices.files[0] == "a/deep/1.2.840.1" and slices.files[4] == "a/flat/1"
    np.testing.assert_array_equal(images(slices), np.concatenate([HU, HU, HU]))


def test_what_is_no_dicom_by_its_name_is_listed(tmp_path, ct):
    write_series(tmp_path, ct)
    for name in ("notes.txt", "LICENSE", ".hidden"):
        (tmp_path / name).write_text("something")
    slices = read_slices(tmp_path)
    assert len(slices) == 4 and slices.ignored == ["LICENSE", "notes.txt"] and slices.skipped == []


def test_targets_go_by_file_and_then_by_patient(tmp_path, ct):
    write_series(tmp_path, ct, patient="p7")
    slices = read_slices(tmp_path, targets={"p7": 2, "0003.dcm": 0})
    assert [int(item["target"]) for item in slices] == [2, 2, 0, 2] == slices.targets.tolist()
    assert slices[0]["target"].dtype == torch.int64 and slices[0]["target"].shape == ()


@pytest.mark.parametrize("targets", [{"0001.dcm": 1}, {"p1": -1}, {"p1": 0.5}])
def test_missing_or_odd_targets_are_refused(tmp_path, ct, targets):
    write_series(tmp_path, ct)
    with pytest.raises(DataError, match=r"0002\.dcm without a target|targets\['p1'\]"):
        read_slices(tmp_path, targets=targets)


def test_window_and_size_are_applied_in_this_order(tmp_path):
    values = np.where(np.arange(8) < 4, -1000, 3000) * np.ones((1, 8, 1))
    write_series(tmp_path, filled(grid((1, 8, 8)), values.astype(np.int16)))
    [item] = read_slices(tmp_path, window=(40, 80), size=4)
    assert item["image"].shape == item["mask"].shape == (1, 4, 4)
    # Two columns become one: where both are of one kind, it stays black or white.
    torch.testing.assert_close(item["image"][0, 0, [0, 3]], torch.tensor([0.0, 1.0]))
    middle = item["image"][0, :, 1:3].mean()
    assert middle == pytest.approx(0.5)  # not what a window shows of the mean, 1000
    [item] = read_slices(tmp_path, window=(40, 80))
    torch.testing.assert_close(item["image"][0], ct_window(torch.from_numpy(values[0]).float(), 40, 80))


def test_slices_of_several_sizes_need_a_size(tmp_path, ct):
    write_series(tmp_path, ct)
    write_series(tmp_path / "other", filled(grid((1, 6, 7)), HU[:1, [0, 1, 2, 3, 4, 0]]), series="2")
    with pytest.raises(DataError, match=r"0001\.dcm has \(5, 7\) and other/0001\.dcm \(6, 7\)"):
        read_slices(tmp_path)
    assert {tuple(item["image"].shape) for item in read_slices(tmp_path, size=(3, 4))} == {(1, 3, 4)}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"size": 0}, DataError),
        ({"size": (8, 2.5)}, DataError),
        ({"window": (40, 0)}, RangeError),
        ({"on_error": "ignore"}, RangeError),
    ],
)
def test_options_out_of_range_are_refused_before_a_file_is_read(tmp_path, options, error):
    with pytest.raises(error, match=next(iter(options)).replace("window", "width")):
        read_slices(tmp_path / "none", **options)


def test_workers_give_the_same_batches_in_the_same_order(tmp_path, ct):
    write_series(tmp_path, ct)
    slices = read_slices(tmp_path, targets={"p1": 1})
    alone, shared = (list(DataLoader(slices, batch_size=3, num_workers=workers)) for workers in (0, 2))
    for one, other in zip(alone, shared, strict=True):
        assert one.keys() == other.keys() and one["file"] == other["file"]
        assert all(torch.equal(one[key], other[key]) for key in ("image", "mask", "target", "annotated"))
    assert [len(batch["image"]) for batch in alone] == [3, 1]
    assert torch.equal(pickle.loads(pickle.dumps(slices))[2]["image"], slices[2]["image"])


def test_extra_that_is_missing_is_named_with_the_command_that_installs_it(tmp_path, ct, monkeypatch):
    write_series(tmp_path, ct)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(DataError, match=r'pip install "attribguard\[medical\]"'):
        read_slices(tmp_path)
