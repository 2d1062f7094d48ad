import gzip
import json
import pickle

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from attribguard.data.medical.decathlon import MedicalDecathlon
from attribguard.errors import DataError, RangeError

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK writes the files, and is not installed")
pytest.importorskip("nibabel", reason="nibabel reads the files, and is not installed")

TASK = "Task09_Spleen"
LABELS = {"0": "background", "1": "spleen", "2": "cancer"}
SHAPE = (6, 5, 7)  # slices, rows, columns, as SimpleITK has it
RNG = np.random.default_rng(0)
HU = RNG.integers(-1000, 2000, (3, *SHAPE)).astype("i2")
# Labels 1 and 2, which along each axis leave some slices empty.
ORGANS = RNG.integers(0, 3, (3, *SHAPE)).astype("u1")
ORGANS[:, [0, 3, 4]] = ORGANS[:, :, [1, 4]] = ORGANS[:, :, :, [0, 2]] = 0
PLANES = ("axial", "coronal", "sagittal")


def picture(values, origin=(-3, -4, 100)):
    image = sitk.GetImageFromArray(values)
    image.SetSpacing([0.5, 0.75, 2.0])
    image.SetOrigin(origin)
    return image


def write_task(folder, images, labels, *, ending=".nii.gz", **changes):
    task = folder / TASK
    entries = []
    for number, pair in enumerate(zip(images, labels, strict=True)):
        entry = {}
        for key, place, image in zip(("image", "label"), ("imagesTr", "labelsTr"), pair, strict=True):
            (task / place).mkdir(parents=True, exist_ok=True)
            sitk.WriteImage(image, str(task / place / f"spleen_{number}{ending}"))
            entry[key] = f"./{place}/spleen_{number}.nii.gz"
        entries.append(entry)
    return describe(folder, {"labels": LABELS, "training": entries, "numTraining": len(entries)} | changes)


def describe(folder, content):
    (folder / TASK).mkdir(exist_ok=True)
    (folder / TASK / "dataset.json").write_text(json.dumps(content))
    return folder


def description(folder):
    return json.loads((folder / TASK / "dataset.json").read_text())


@pytest.fixture
def folder(tmp_path):
    return write_task(tmp_path, map(picture, HU), map(picture, ORGANS))


def stacked(data, key):
    return np.stack([np.asarray(item[key]) for item in data])


def test_axial_slices_are_read_from_the_feet_to_the_head_as_ct_shows_them(folder):
    data = MedicalDecathlon(folder, TASK)
    # SimpleITK's axes run left, posterior and superior, as the columns, rows and slices of CT do.
    np.testing.assert_array_equal(stacked(data, "image")[:, 0], HU.reshape(-1, 5, 7))
    np.testing.assert_array_equal(stacked(data, "mask")[:, 0], ORGANS.reshape(-1, 5, 7) > 0)
    item = data[7]
    assert item["image"].dtype == item["mask"].dtype == torch.float32 and item["image"].shape == (1, 5, 7)
    assert item["group"] == "spleen_1" and item["file"] == f"{TASK}/imagesTr/spleen_1.nii.gz" and item["slice"] == 1
    assert item["annotated"].dtype == torch.bool and item["annotated"]
    assert data.labels == {0: "background", 1: "spleen", 2: "cancer"} and data.skipped == []
    assert data.groups == [f"spleen_{number}" for number in (0, 1, 2) for _ in range(6)]


@pytest.mark.parametrize("plane", PLANES)
def test_targets_say_whether_the_organ_is_in_the_slice(folder, plane):
    data = MedicalDecathlon(folder, TASK, plane, organ="cancer")
    assert len(data) == 3 * {"axial": 6, "coronal": 5, "sagittal": 7}[plane]
    masks = stacked(data, "mask")
    np.testing.assert_array_equal(stacked(data, "target"), masks.any((1, 2, 3)))
    np.testing.assert_array_equal(data.targets, masks.any((1, 2, 3)))
    assert masks.sum() == (ORGANS == 2).sum() and data[0]["target"].dtype == torch.int64


def physical(image):
    """For every voxel, mm to the right, to the front and to the head: (3, slices, rows, columns)."""
    size = image.GetSize()
    places = np.zeros((3, *size[::-1]), np.float32)
    for x, y, z in np.ndindex(*size):
        places[:, z, y, x] = image.TransformIndexToPhysicalPoint((x, y, z))
    return places * np.array([-1, -1, 1], np.float32)[:, None, None, None]


@pytest.mark.parametrize("stored", ["LPS", "RAS", "PIR", "SLA", "ILP", "ARS"])
def test_planes_are_turned_as_radiologists_look_at_them_however_they_are_stored(tmp_path, stored):
    image = sitk.DICOMOrient(picture(HU[0]), stored)
    marked = sitk.DICOMOrient(picture(ORGANS[0]), stored)
    places = []
    for place in physical(image):
        one = sitk.GetImageFromArray(place)
        one.CopyInformation(image)
        places.append(one)
    write_task(tmp_path, [sitk.JoinSeries(places)], [marked])
    # What grows along slices, down the rows and to the right: right 0, front 1, head 2, or their opposites.
    growing = {"axial": (2, ~1, ~0), "coronal": (1, ~2, ~0), "sagittal": (0, ~2, ~1)}
    for plane in PLANES:
        images = stacked(MedicalDecathlon(tmp_path, TASK, plane), "image")  # (n, 3, H, W)
        for axis, axis_of_array in zip(growing[plane], (0, 2, 3), strict=True):
            which, sign = (axis, 1) if axis >= 0 else (~axis, -1)
            assert (np.diff(images[:, which], axis=axis_of_array - (axis_of_array > 0)) * sign > 0).all()
    np.testing.assert_array_equal(stacked(MedicalDecathlon(tmp_path, TASK), "mask")[:, 0], ORGANS[0] > 0)


@pytest.mark.parametrize("plane", PLANES)
def test_slices_with_and_without_the_organ_are_all_slices(folder, plane):
    whole, shown, hidden = (MedicalDecathlon(folder, TASK, plane, keep=keep) for keep in ("all", "with", "without"))
    assert shown.targets.all() and not hidden.targets.any() and len(shown) + len(hidden) == len(whole)
    kept = iter(shown), iter(hidden)
    for item in whole:
        other = next(kept[0 if item["target"] else 1])
        assert (item["file"], item["slice"]) == (other["file"], other["slice"])
        assert torch.equal(item["image"], other["image"])


def test_organ_may_be_several_labels(folder):
    marked = ORGANS.reshape(-1, 5, 7)
    for organ, numbers in (("spleen", [1]), (["spleen", "cancer"], [1, 2]), ({"background"}, [0]), (None, [1, 2])):
        masks = stacked(MedicalDecathlon(folder, TASK, organ=organ), "mask")[:, 0]
        np.testing.assert_array_equal(masks, np.isin(marked, numbers))


def test_files_may_be_unpacked(tmp_path, folder):
    unpacked = tmp_path / "unpacked"
    unpacked.mkdir()
    write_task(unpacked, map(picture, HU), map(picture, ORGANS), ending=".nii")
    one, other = MedicalDecathlon(folder, TASK, "coronal"), MedicalDecathlon(unpacked, TASK, "coronal")
    assert other.files[0] == f"{TASK}/imagesTr/spleen_0.nii" and one.groups == other.groups
    np.testing.assert_array_equal(stacked(one, "image"), stacked(other, "image"))


def test_size_and_window_are_applied(folder):
    item = MedicalDecathlon(folder, TASK, size=(10, 14), window=(0, 500))[1]
    assert item["image"].shape == (1, 10, 14) and item["image"].min() >= 0 and item["image"].max() <= 1
    np.testing.assert_array_equal(item["mask"][0], (ORGANS[0, 1] > 0).repeat(2, 0).repeat(2, 1))


def test_volumes_of_several_sizes_need_a_size(tmp_path):
    images = [picture(HU[0]), picture(HU[1, :, :, :6])]
    write_task(tmp_path, images, [picture(ORGANS[0]), picture(ORGANS[1, :, :, :6])])
    with pytest.raises(DataError, match=r"spleen_0.nii.gz has \(5, 7\) and .*spleen_1.nii.gz \(5, 6\)"):
        MedicalDecathlon(tmp_path, TASK)
    assert MedicalDecathlon(tmp_path, TASK, "sagittal")[0]["image"].shape == (1, 6, 5)
    assert len(MedicalDecathlon(tmp_path, TASK, size=8)) == 12


def test_workers_give_the_same_batches_in_the_same_order(folder):
    data = MedicalDecathlon(folder, TASK, "coronal")
    alone, shared = (list(DataLoader(data, batch_size=4, num_workers=workers)) for workers in (0, 2))
    for one, other in zip(alone, shared, strict=True):
        assert one.keys() == other.keys() and one["file"] == other["file"]
        assert all(torch.equal(one[key], other[key]) for key in ("image", "mask", "target", "annotated", "slice"))
    assert torch.equal(pickle.loads(pickle.dumps(data))[3]["image"], data[3]["image"])


def test_items_do_not_share_memory_with_the_data_set(folder):
    data = MedicalDecathlon(folder, TASK)
    before = data[1]["image"].clone()
    item = data[1]
    item["image"].zero_(), item["target"].zero_(), item["mask"].zero_()
    assert torch.equal(data[1]["image"], before) and data[1]["target"] == 1 and data[1]["mask"].any()


def entries(folder, change):
    content = description(folder)
    change(content["training"][1])
    describe(folder, content)


def rewrite(folder, place, values, **options):
    sitk.WriteImage(picture(values, **options), str(folder / TASK / place / "spleen_1.nii.gz"))


def link_away(folder):
    path = folder / TASK / "imagesTr" / "spleen_1.nii.gz"
    outside = folder.parent / "outside.nii.gz"
    path.rename(outside)
    path.symlink_to(outside)


def cut(folder, place):
    path = folder / TASK / place / "spleen_1.nii.gz"
    path.write_bytes(path.read_bytes()[:-60])


NAN = np.where(np.arange(7) == 3, np.nan, HU[1]).astype("f4")
DAMAGE = {
    "no image": (lambda at: (at / TASK / "imagesTr" / "spleen_1.nii.gz").unlink(), "does not exist"),
    "no label": (lambda at: (at / TASK / "labelsTr" / "spleen_1.nii.gz").unlink(), "does not exist"),
    "label cut off": (lambda at: cut(at, "labelsTr"), "cannot be read"),
    "another size": (lambda at: rewrite(at, "labelsTr", ORGANS[1, :, :4]), "voxels for"),
    "another place": (lambda at: rewrite(at, "labelsTr", ORGANS[1], origin=(-2.7, -4, 100)), "lies elsewhere"),
    "an unknown label": (lambda at: rewrite(at, "labelsTr", ORGANS[1] + np.uint8(1)), "the label 3 in"),
    "a negative label": (lambda at: rewrite(at, "labelsTr", -ORGANS[1].astype("i2")), "the label -[12] in"),
    "half a label": (lambda at: rewrite(at, "labelsTr", ORGANS[1] * np.float32(0.5)), r"the label 0\.5 in"),
    "NaN as a label": (lambda at: rewrite(at, "labelsTr", NAN), "NaN"),
    "the same image again": (
        lambda at: entries(at, lambda entry: entry.update(image="./imagesTr/spleen_0.nii.gz")),
        "names twice",
    ),
    "the image as label": (lambda at: entries(at, lambda entry: entry.update(label=entry["image"])), "names twice"),
    "a way out": (lambda at: entries(at, lambda entry: entry.update(image="../../x.nii.gz")), "is no name in"),
    "an absolute way": (lambda at: entries(at, lambda entry: entry.update(label="/tmp/x.nii.gz")), "is no name in"),
    "a link outside": (link_away, "leads out of the folder"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_bad_volume_is_one_error_or_is_listed(folder, kind):
    damage, words = DAMAGE[kind]
    damage(folder)
    with pytest.raises(DataError, match=words) as caught:
        MedicalDecathlon(folder, TASK)
    assert "spleen_" in str(caught.value) or "x.nii.gz" in str(caught.value)
    data = MedicalDecathlon(folder, TASK, on_error="skip")
    assert data.groups == ["spleen_0"] * 6 + ["spleen_2"] * 6
    [(file, reason)] = data.skipped
    assert file.startswith(TASK) and reason == str(caught.value)


@pytest.mark.parametrize(
    ("damage", "words"),
    [(lambda at: cut(at, "imagesTr"), "cannot be read"), (lambda at: rewrite(at, "imagesTr", NAN), "NaN")],
)
def test_image_that_is_damaged_within_is_an_error_when_it_is_read_or_is_listed(folder, damage, words):
    damage(folder)
    data = MedicalDecathlon(folder, TASK)
    data[0]
    with pytest.raises(DataError, match=f"spleen_1.nii.gz.*{words}"):
        data[6]
    skipping = MedicalDecathlon(folder, TASK, on_error="skip")
    assert len(skipping) == 12 and words in skipping.skipped[0][1]


@pytest.mark.parametrize(
    "content",
    [
        "no json",
        "[" * 10**5,
        "[]",
        json.dumps({"training": []}),
        json.dumps({"labels": LABELS}),
        json.dumps({"labels": LABELS, "training": [{"image": "a.nii.gz"}]}),
        json.dumps({"labels": LABELS, "training": ["a.nii.gz"]}),
        json.dumps({"labels": {"spleen": 1}, "training": []}),
        json.dumps({"labels": {"-1": "spleen"}, "training": []}),
        json.dumps({"labels": {"9999999999": "spleen"}, "training": []}),
        json.dumps({"labels": {}, "training": []}),
        json.dumps({"labels": LABELS, "training": []}),
    ],
)
def test_description_that_describes_no_task_is_an_error(tmp_path, content):
    describe(tmp_path, {})
    (tmp_path / TASK / "dataset.json").write_text(content)
    for on_error in ("raise", "skip"):
        with pytest.raises(DataError, match=r"dataset\.json"):
            MedicalDecathlon(tmp_path, TASK, on_error=on_error)


def test_missing_task_and_a_task_outside_are_errors(folder):
    with pytest.raises(DataError, match=r"Task01_BrainTumour/dataset\.json, which cannot be read"):
        MedicalDecathlon(folder, "Task01_BrainTumour")
    with pytest.raises(DataError, match="is no name in the folder"):
        MedicalDecathlon(folder, f"../{folder.name}/{TASK}")


@pytest.mark.parametrize(
    "options",
    [
        {"plane": "oblique"},
        {"organ": "liver"},
        {"organ": ["spleen", "liver"]},
        {"keep": "none"},
        {"on_error": "ignore"},
    ],
)
def test_unknown_options_are_refused(folder, options):
    with pytest.raises(RangeError, match=r"needed (one of )?'"):
        MedicalDecathlon(folder, TASK, **options)


def test_nothing_to_keep_is_an_error(folder):
    with pytest.raises(DataError, match="without a slice to keep"):
        MedicalDecathlon(folder, TASK, organ=[], keep="with")
    for place in (folder / TASK / "imagesTr").iterdir():
        place.write_bytes(gzip.compress(b"nothing"))
    with pytest.raises(DataError, match="3 volumes were skipped"):
        MedicalDecathlon(folder, TASK, on_error="skip")
