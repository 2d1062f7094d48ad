import numpy as np
import pytest
import torch
from PIL import Image

from attribguard.data.medical.slice_masks import mask_name
from attribguard.data.medical.slices import read_slices
from attribguard.errors import DataError

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK writes the files, and is not installed")
pytest.importorskip("pydicom", reason="pydicom reads the files, and is not installed")
pytest.importorskip("nibabel", reason="nibabel reads the files, and is not installed")

from tests.data.medical.ct_files import edit, filled, grid, write_series  # noqa: E402 (needs both)

SHAPE = (4, 5, 7)
RNG = np.random.default_rng(0)
HU = RNG.integers(-1000, 2000, SHAPE).astype(np.int16)
MARKED = (RNG.random(SHAPE) < 0.3).astype(np.uint8)
TILTED = np.array([[1, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])


def masks(slices):
    return np.stack([item["mask"][0].numpy() for item in slices])


@pytest.fixture
def ct():
    return filled(grid(SHAPE), HU)


@pytest.fixture
def folder(tmp_path, ct):
    write_series(tmp_path / "case1", ct)
    return tmp_path


def test_png_of_the_same_name_is_the_mask_of_its_slice(folder):
    Image.fromarray(MARKED[1] * 255).save(folder / "case1" / "0002.png")
    Image.fromarray(MARKED[3].astype(np.uint16) * 65535).save(folder / "case1" / "0004.png")
    slices = read_slices(folder)
    assert slices.annotated.tolist() == [False, True, False, True]
    assert [bool(item["annotated"]) for item in slices] == [False, True, False, True]
    np.testing.assert_array_equal(masks(slices), [np.ones((5, 7)), MARKED[1], np.ones((5, 7)), MARKED[3]])


@pytest.mark.parametrize("where", ["case1.nii.gz", "case1/case1.nii"])
@pytest.mark.parametrize("stored", ["LPS", "RAS", "PIR", "SLA", "ILP"])
def test_volume_named_as_the_folder_lies_on_its_slices_however_it_is_stored(folder, ct, where, stored):
    sitk.WriteImage(sitk.DICOMOrient(filled(ct, MARKED * 3), stored), str(folder / where))
    slices = read_slices(folder)
    assert slices.annotated.all()
    np.testing.assert_array_equal(masks(slices), MARKED)


def test_folder_itself_may_be_the_case(folder, ct):
    sitk.WriteImage(filled(ct, MARKED), str(folder / "case1" / "case1.nii.gz"))
    np.testing.assert_array_equal(masks(read_slices(folder / "case1")), MARKED)


@pytest.mark.parametrize("turn", [TILTED, np.roll(np.eye(3), 1, 0), np.diag([-1, -1, 1]), np.roll(np.eye(3), 2, 0)])
def test_tilted_and_sagittal_series_have_their_masks_too(tmp_path, turn):
    ct = filled(grid(SHAPE, direction=turn.astype(float)), HU)
    write_series(tmp_path / "a", ct)
    sitk.WriteImage(filled(ct, MARKED), str(tmp_path / "a.nii"))
    slices = read_slices(tmp_path)
    np.testing.assert_array_equal(np.stack([item["image"][0] for item in slices]), HU)
    np.testing.assert_array_equal(masks(slices), MARKED)


def test_volume_of_one_slice_is_named_as_the_slice(folder, ct):
    sitk.WriteImage(filled(ct, MARKED)[:, :, 2:3], str(folder / "case1" / "0003.nii.gz"))
    slices = read_slices(folder)
    assert slices.annotated.tolist() == [False, False, True, False]
    np.testing.assert_array_equal(masks(slices)[2], MARKED[2])


def test_several_masks_of_a_slice_are_united_and_resized_with_it(folder, ct):
    sitk.WriteImage(filled(ct, MARKED), str(folder / "case1.nii"))
    more = (RNG.random(SHAPE[1:]) < 0.3).astype(np.uint8)
    Image.fromarray(more).save(folder / "case1" / "0001.png")
    np.testing.assert_array_equal(masks(read_slices(folder))[0], MARKED[0] | more)
    doubled = masks(read_slices(folder, size=(10, 14)))
    np.testing.assert_array_equal(doubled[1], MARKED[1].repeat(2, 0).repeat(2, 1))


def write(ct, path, values=MARKED, **changes):
    image = filled(ct, values)
    for name, value in changes.items():
        getattr(image, f"Set{name.title()}")(value)
    sitk.WriteImage(image, str(path))


WRONG = {
    "half a voxel aside": (
        lambda ct, at: write(ct, at / "case1.nii", origin=(-29.75, -20, 100)),
        "lies elsewhere|place",
    ),
    "one voxel aside": (lambda ct, at: write(ct, at / "case1.nii", origin=(-29.5, -20, 100)), "lies elsewhere"),
    "farther than numbers go": (lambda ct, at: write(ct, at / "case1.nii", origin=(3e38, -20, 100)), "lies elsewhere"),
    "above": (lambda ct, at: write(ct, at / "case1.nii", origin=(-30, -20, 102)), "lies elsewhere"),
    "wider voxels": (lambda ct, at: write(ct, at / "case1.nii", spacing=(0.6, 0.75, 2)), "another size or place"),
    "tilted": (lambda ct, at: write(ct, at / "case1.nii", direction=TILTED.ravel().tolist()), "turned otherwise"),
    "a corner": (lambda ct, at: sitk.WriteImage(filled(ct, MARKED)[:6, :, :], str(at / "case1.nii")), "another size"),
    "two values a voxel": (
        lambda ct, at: sitk.WriteImage(sitk.JoinSeries([filled(ct, MARKED)] * 2), str(at / "case1.nii")),
        "several values a voxel",
    ),
    "NaN": (lambda ct, at: write(ct, at / "case1.nii", np.full(SHAPE, np.nan, np.float32)), "NaN"),
    "a smaller PNG": (lambda ct, at: Image.fromarray(MARKED[0, :, :6]).save(at / "case1" / "0001.png"), r"\(5, 6\)"),
    "a PNG of grays": (
        lambda ct, at: Image.fromarray(MARKED[0] * 100 + 10).save(at / "case1" / "0001.png"),
        "several values",
    ),
    "a broken PNG": (lambda ct, at: (at / "case1" / "0001.png").write_bytes(b"\x89PNG"), "cannot be read"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_mask_that_does_not_fit_is_one_error_when_its_slice_is_read(folder, ct, kind):
    make, words = WRONG[kind]
    make(ct, folder)
    slices = read_slices(folder)
    with pytest.raises(DataError, match=words) as caught:
        list(slices)
    assert "case1.nii" in str(caught.value) or "0001.png" in str(caught.value)


def test_skipping_leaves_out_slices_whose_mask_is_bad(folder):
    Image.fromarray(MARKED[0, :, :6]).save(folder / "case1" / "0002.png")
    slices = read_slices(folder, on_error="skip")
    assert slices.files == ["case1/0001.dcm", "case1/0003.dcm", "case1/0004.dcm"]
    [(file, reason)] = slices.skipped
    assert file == "case1/0002.dcm" and "0002.png of (5, 6) pixels for case1/0002.dcm of (5, 7)" in reason


@pytest.mark.parametrize("name", ["case1/0009.png", "case1/other.nii", "case2.nii.gz", "0001.png", "case1.png"])
def test_mask_without_a_slice_is_an_error_or_listed(folder, ct, name):
    if name.endswith(".png"):
        Image.fromarray(MARKED[0]).save(folder / name)
    else:
        sitk.WriteImage(filled(ct, MARKED), str(folder / name))
    with pytest.raises(DataError, match=f"{name} without a slice"):
        read_slices(folder)
    slices = read_slices(folder, on_error="skip")
    assert [file for file, _ in slices.skipped] == [name] and len(slices) == 4 and not slices.annotated.any()


def test_volume_needs_slices_that_say_where_they_lie(folder, ct):
    sitk.WriteImage(filled(ct, MARKED), str(folder / "case1.nii"))
    edit(folder / "case1" / "0001.dcm", ImagePositionPatient=None)
    with pytest.raises(DataError, match="does not say where it lies"):
        list(read_slices(folder))


def test_masks_can_be_made_a_need(folder):
    for number in (1, 2, 4):
        Image.fromarray(MARKED[0]).save(folder / "case1" / f"000{number}.png")
    with pytest.raises(DataError, match=r"0003\.dcm without a mask"):
        read_slices(folder, masks_needed=True)
    assert len(read_slices(folder, masks_needed=True, on_error="skip")) == 3


def test_link_to_a_mask_outside_is_refused(folder, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "0001.png"
    Image.fromarray(MARKED[0]).save(outside)
    (folder / "case1" / "0001.png").symlink_to(outside)
    with pytest.raises(DataError, match="leads out of the folder"):
        read_slices(folder)


def test_names_keep_the_dots_of_a_uid():
    assert mask_name("a.b/1.2.840.10008") == mask_name("a.b/1.2.840.10008.dcm") == "a.b/1.2.840.10008"
    assert mask_name("0001.NII.GZ") == mask_name("0001.png") == "0001"


def test_mask_is_float_and_of_one_channel(folder, ct):
    sitk.WriteImage(filled(ct, MARKED.astype(np.float32) * -0.5), str(folder / "case1.nii"))
    item = read_slices(folder)[0]
    assert item["mask"].dtype == torch.float32 and item["mask"].shape == (1, 5, 7)
    np.testing.assert_array_equal(item["mask"][0], MARKED[0])
