import hashlib
import os

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage, stats
from torch.utils.data import DataLoader

from attribguard.data import Crosses
from attribguard.errors import DataError

SPLITS = ("train", "valid", "test")
TOUCHING = np.ones((3, 3))  # at a corner counts
FILES = ("distractor1.npz", "distractor2.npz", "distractor3.npz")

# Read off the authors' files by eye: rows, then columns, of the box at 28 pixels.
BOX_ROWS, BOX_COLUMNS = (23, 24), {"left": (3, 4, 5), "right": (22, 23, 24)}


def count_shapes(picture):
    return ndimage.label(picture, TOUCHING)[1]


def box_picture(side):
    picture = np.zeros((28, 28), dtype=bool)
    picture[np.ix_(BOX_ROWS, BOX_COLUMNS[side])] = True
    return picture


def plus(row, column, arm):
    """The 28-pixel picture of one cross, pixel by pixel."""
    picture = np.zeros((28, 28), dtype=bool)
    for step in range(-arm, arm + 1):
        picture[row + step, column] = picture[row, column + step] = True
    return picture


def find_crosses(mask, count):
    """(arm, centres) of a mask of one or two crosses whose shapes stand apart; fails if it holds anything else."""
    labels, found = ndimage.label(mask, TOUCHING)
    assert found == count
    centres, arms = [], set()
    for number in range(1, count + 1):
        rows, columns = np.nonzero(labels == number)
        arm = int(rows.max() - rows.min()) // 2
        centre = int(rows.min()) + arm, int(columns.min()) + arm
        np.testing.assert_array_equal(labels == number, plus(*centre, arm))
        centres.append(centre)
        arms.add(arm)
    assert len(arms) == 1, "crosses of different sizes in one image"
    return arms.pop(), centres


def place_statistics(masks, targets):
    """For every (class, arm): the rows and columns of the centres, and the crosses' distances in each direction."""
    places = {}
    for mask, target in zip(masks, targets, strict=True):
        arm, centres = find_crosses(mask, 2 - int(target))
        rows, columns, gaps = places.setdefault((int(target), arm), ([], [], []))
        rows += [row for row, _ in centres]
        columns += [column for _, column in centres]
        if len(centres) == 2:
            gaps += [abs(a - b) for a, b in zip(*centres, strict=True)]
    return places


@pytest.fixture(scope="module")
def authors(actdiff_synth):
    """All three files as one: image, mask (boolean), label."""
    files = [np.load(actdiff_synth / name, allow_pickle=False) for name in FILES]
    image, mask, label = (np.concatenate([file[key] for file in files]) for key in ("image", "mask", "label"))
    return image == 255, mask == 1, label


@pytest.fixture(scope="module")
def authors_standing_apart(authors):
    """Which of the authors' images keep the generator's rule: nothing touches, both of the box's places are free."""
    _, mask, label = authors
    boxes = box_picture("left") | box_picture("right")
    return np.array([count_shapes(one | boxes) == 4 - int(target) for one, target in zip(mask, label, strict=True)])


@pytest.fixture(scope="module")
def drawn():
    return Crosses("train", n=3000)


@pytest.mark.parametrize(
    ("split", "target", "side"),
    [
        ("train", 0, "right"),
        ("train", 1, "left"),
        ("valid", 0, "left"),
        ("valid", 1, "right"),
        ("test", 0, "left"),
        ("test", 1, "right"),
    ],
)
def test_distractor_stands_on_the_side_of_its_class_and_split(split, target, side):
    data = Crosses(split, n=40)
    of_class = data.targets == target
    distractor = (data.images - data.masks)[of_class, 0].numpy()
    assert len(distractor) == 20
    for picture in distractor:
        np.testing.assert_array_equal(picture, box_picture(side))


def test_authors_box_is_where_the_generator_draws_it(authors):
    image, mask, label = authors
    for target, side in ((0, "right"), (1, "left")):
        box = box_picture(side)
        assert image[label == target][:, box].all()
        np.testing.assert_array_equal((image & ~mask)[label == target].any(0), box)


def test_mask_marks_one_size_of_crosses_and_nothing_else(drawn):
    for mask, target in zip(drawn.masks[:300, 0].numpy() == 1, drawn.targets, strict=False):
        find_crosses(mask, 2 - int(target))  # compares every shape with a cross, pixel by pixel


def test_places_and_distances_are_distributed_as_in_the_authors_files(authors, authors_standing_apart, drawn):
    _, mask, label = authors
    theirs = place_statistics(mask[authors_standing_apart], label[authors_standing_apart])
    ours = place_statistics(drawn.masks[:, 0].numpy() == 1, drawn.targets.tolist())
    assert set(ours) == set(theirs) == {(0, 1), (0, 2), (1, 1), (1, 2)}
    for kind, lists in theirs.items():
        for name, wanted, got in zip(("rows", "columns", "distances"), lists, ours[kind], strict=True):
            if wanted:
                assert (min(got), max(got)) == (min(wanted), max(wanted)), (kind, name)
                assert stats.ks_2samp(wanted, got).pvalue > 0.001, (kind, name)


def test_no_two_crosses_share_a_row_or_column_here_or_in_the_authors_files(authors, authors_standing_apart, drawn):
    _, mask, label = authors
    theirs = place_statistics(mask[authors_standing_apart], label[authors_standing_apart])
    ours = place_statistics(drawn.masks[:, 0].numpy() == 1, drawn.targets.tolist())
    for arm in (1, 2):
        # Drawn with replacement, 4 in 100 distances would be 0.
        assert min(theirs[0, arm][2]) == min(ours[0, arm][2]) == 1


def test_both_sizes_of_cross_are_as_frequent_as_in_the_authors_files(authors, drawn):
    _, mask, label = authors
    small = {0: 10, 1: 5}
    for target in (0, 1):
        # 8 for overlapping small crosses, of which the authors have a few
        theirs = (mask[label == target].sum((1, 2)) <= small[target]).mean()
        ours = (drawn.masks[drawn.targets == target].sum((1, 2, 3)) == small[target]).float().mean()
        assert theirs == pytest.approx(0.5, abs=0.06)  # 3 standard deviations of 768 throws of a coin
        assert ours == pytest.approx(0.5, abs=0.04)  # of 1500


def test_both_sizes_of_cross_are_equally_frequent_where_large_ones_hardly_fit():
    data = Crosses("train", n=2000, size=16)
    pixels = data.masks[data.targets == 0].sum((1, 2, 3))
    assert (pixels == 10).float().mean() == pytest.approx(0.5, abs=0.05)


def test_docstring_says_how_many_of_the_authors_images_break_the_rule(authors, authors_standing_apart):
    _, mask, label = authors
    sides = np.where(label[:, None, None] == 1, box_picture("left"), box_picture("right"))
    overlapping = (mask & sides).any((1, 2)).mean()
    assert f"{1 - authors_standing_apart.mean():.0%} {overlapping:.0%}" == "19% 4%"
    said = " ".join(Crosses.__doc__.split())
    assert "19 % of the images break this rule; in 4 % a cross and the box overlap" in said


def test_crosses_keep_clear_of_both_places_of_the_box():
    """Were only the box's own place kept free, a cross in the other one would say which class it is in training."""
    places = ndimage.binary_dilation(box_picture("left") | box_picture("right"), TOUCHING)
    for split in SPLITS:
        assert not Crosses(split, n=600).masks[:, 0].numpy()[:, places].any()


@given(
    split=st.sampled_from(SPLITS),
    n=st.integers(1, 9),
    size=st.integers(16, 90),
    seed=st.integers(0, 2**70),
)
def test_every_set_is_balanced_binary_and_countable(split, n, size, seed):
    data = Crosses(split, n=n, size=size, seed=seed)
    assert data.images.shape == data.masks.shape == (n, 1, size, size)
    assert (data.images.dtype, data.masks.dtype, data.targets.dtype) == (torch.float32, torch.float32, torch.int64)
    assert torch.bincount(data.targets, minlength=2).tolist() == [(n + 1) // 2, n // 2]
    unit = max(1, round(size / 28))
    for image, target, mask in data:
        assert set(image.unique().tolist()) == set(mask.unique().tolist()) == {0.0, 1.0}
        crosses = 2 - int(target)
        assert count_shapes(mask[0]) == crosses
        assert count_shapes(image[0]) == crosses + 1
        rows, columns = (image - mask)[0].nonzero(as_tuple=True)
        assert ((image - mask) >= 0).all()
        assert (image - mask).sum() == 6 * unit**2
        assert size - 1 - rows.max() == 3 * unit
        edge = columns.min() if (target == 1) == (split == "train") else size - 1 - columns.max()
        assert edge == 3 * unit
        # 5 or 9 squares a cross
        assert mask.sum() in (5 * crosses * unit**2, 9 * crosses * unit**2)


def test_classes_come_in_mixed_order():
    targets = Crosses("train", n=100).targets
    changes = (targets.diff() != 0).sum()
    assert 30 < changes < 70  # 1 if sorted, 99 if alternating


def test_items_are_the_rows_of_the_whole_tensors():
    data = Crosses("valid", n=7)
    assert len(data) == 7
    for index, (image, target, mask) in enumerate(data):
        assert torch.equal(image, data.images[index])
        assert target == data.targets[index]
        assert torch.equal(mask, data.masks[index])
    assert index == 6
    with pytest.raises(IndexError):
        data[7]


def test_loader_with_two_workers_gives_the_same_items():
    data = Crosses("train", n=10)
    batches = list(DataLoader(data, batch_size=4, num_workers=2))
    images, targets, masks = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert targets.dtype == torch.int64
    assert torch.equal(images, data.images)
    assert torch.equal(targets, data.targets)
    assert torch.equal(masks, data.masks)


def test_same_seed_draws_the_same_set_and_another_seed_another():
    first, again, other = (Crosses("test", n=20, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.masks, again.masks)
    assert torch.equal(first.targets, again.targets)
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.targets, other.targets)


def test_drawing_leaves_the_global_random_states_alone():
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    Crosses("train", n=4)
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


@pytest.mark.parametrize(
    ("split", "checksum"),
    [
        ("train", "69bfa2080eac92bc"),
        ("valid", "5ecc91ea4aa6d384"),
        ("test", "0eeb19144da47427"),
    ],
)
def test_stream_is_the_one_that_every_machine_has_drawn_so_far(split, checksum):
    """No claim about what is right: results from elsewhere stay comparable only while this holds."""
    data = Crosses(split, n=32)
    bits = torch.cat([data.images.flatten(), data.masks.flatten(), data.targets.float()]).bool().numpy()
    assert hashlib.sha256(np.packbits(bits).tobytes()).hexdigest()[:16] == checksum


def two_cross_pictures(data):
    return {mask.numpy().tobytes() for mask in data.masks[data.targets == 0]}


def test_splits_with_the_same_seed_share_no_picture():
    # 50 a split of some 260,000 pictures with two crosses; those with one are too few, 1,100, not to recur.
    train, valid, test = (two_cross_pictures(Crosses(split, n=100)) for split in SPLITS)
    assert len(train) == 50
    assert not train & valid
    assert not train & test
    assert not valid & test


def test_a_long_seed_is_not_another_splits_short_seed():
    """NumPy reads [5 + 2**32, 0] and [5, 1] as the same words."""
    train, valid = Crosses("train", n=20, seed=5 + 2**32), Crosses("valid", n=20, seed=5)
    assert not two_cross_pictures(train) & two_cross_pictures(valid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "validation"}, "split='validation'; needed 'train', 'valid' or 'test'"),
        ({"split": None}, "split=None"),
        ({"n": 0}, "n=0; needed a whole number, 1 or more"),
        ({"n": 2.0}, r"n=2\.0"),
        ({"n": True}, "n=True"),
        ({"n": "8"}, "n='8'"),
        ({"size": 15}, "size=15; needed a whole number, 16 or more"),
        ({"size": (28, 28)}, r"size=\(28, 28\)"),
        ({"seed": -1}, "seed=-1; needed a whole number, 0 or more"),
        ({"seed": None}, "seed=None"),
    ],
)
def test_bad_arguments_get_one_clear_error(change, message):
    with pytest.raises(DataError, match=f"^got {message}"):
        Crosses(**{"split": "train", "n": 4, **change})


def test_numpy_integers_are_whole_numbers():
    data = Crosses("train", n=np.int64(3), size=np.int32(20), seed=np.uint64(1))
    assert torch.equal(data.images, Crosses("train", n=3, size=20, seed=1).images)


# Files


def arrays(**changes):
    """A file's arrays: three 4x6 images with one lit pixel each, masked in the first."""
    image = np.zeros((3, 4, 6), dtype=np.uint8)
    image[:, 1, 2] = 255
    mask = np.zeros_like(image)
    mask[0, 1, 2] = 1
    return {"image": image, "mask": mask, "label": np.array([0, 1, 1], dtype=np.uint8), **changes}


@pytest.fixture
def saved(tmp_path):
    def save(**changes):
        np.savez_compressed(tmp_path / "some.npz", **arrays(**changes))
        return tmp_path / "some.npz"

    return save


def test_file_keeps_its_pixels_and_order(saved):
    for path in (saved(), str(saved())):
        data = Crosses.from_npz(path)
        assert isinstance(data, Crosses)
        assert data.images.shape == data.masks.shape == (3, 1, 4, 6)
        assert (data.images.dtype, data.masks.dtype, data.targets.dtype) == (torch.float32, torch.float32, torch.int64)
        assert data.images.nonzero().tolist() == [[0, 0, 1, 2], [1, 0, 1, 2], [2, 0, 1, 2]]
        assert data.masks.nonzero().tolist() == [[0, 0, 1, 2]]
        assert data.images.max() == 1
        assert data.targets.tolist() == [0, 1, 1]


def test_invert_mirrors_images_and_masks_left_to_right(saved):
    data = Crosses.from_npz(saved(), invert=True)
    assert data.images.nonzero().tolist() == [[0, 0, 1, 3], [1, 0, 1, 3], [2, 0, 1, 3]]
    assert data.masks.nonzero().tolist() == [[0, 0, 1, 3]]
    assert data.targets.tolist() == [0, 1, 1]
    assert data.images.is_contiguous()
    assert data.masks.is_contiguous()


def test_boolean_masks_and_wide_integers_are_read(saved):
    plain = Crosses.from_npz(saved())
    mask, label = arrays()["mask"].astype(bool), arrays()["label"].astype(np.int64)
    image = np.asfortranarray(arrays()["image"].astype(np.int32))
    other = Crosses.from_npz(saved(image=image, mask=mask, label=label))
    assert torch.equal(plain.images, other.images)
    assert torch.equal(plain.masks, other.masks)
    assert torch.equal(plain.targets, other.targets)
    assert other.images.is_contiguous()


def test_other_arrays_in_the_file_are_left_alone(saved):
    assert len(Crosses.from_npz(saved(notes=np.array(["by hand"])))) == 3


@pytest.mark.parametrize("name", FILES)
def test_authors_files_hold_balanced_classes_and_the_training_side(actdiff_synth, name):
    data = Crosses.from_npz(actdiff_synth / name)
    assert data.images.shape == (512, 1, 28, 28)
    assert torch.bincount(data.targets).tolist() == [256, 256]
    left = (data.images - data.masks)[:, 0, :, :14].sum((1, 2)) > 0
    assert torch.equal(left, data.targets == 1)


def test_inverted_authors_file_has_the_generators_validation_side(actdiff_synth):
    theirs, ours = Crosses.from_npz(actdiff_synth / FILES[1], invert=True), Crosses("valid", n=512)
    for target in (0, 1):
        boxes = [(data.images - data.masks)[data.targets == target].amax(0) for data in (theirs, ours)]
        assert torch.equal(*boxes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict.fromkeys(("image", "mask"), np.zeros((3, 1, 4, 6), np.uint8)),
            r"image \(3, 1, 4, 6\).*needed image \(N, H",
        ),
        (dict.fromkeys(("image", "mask"), np.zeros((3, 4, 0), np.uint8)), r"image \(3, 4, 0\).*none empty"),
        ({"mask": np.zeros((3, 6, 4), np.uint8)}, r"image .*mask \(3, 6, 4\)"),
        ({"mask": np.zeros((2, 4, 6), np.uint8)}, r"image .*mask \(2, 4, 6\)"),
        ({"label": np.zeros(2, np.uint8)}, r"image .*label \(2,\)"),
        ({"label": np.zeros((3, 1), np.uint8)}, r"image .*label \(3, 1\)"),
        ({"image": np.ones((3, 4, 6), np.uint8)}, r"image of uint8 with the values \[1\].*that are 0 or 255"),
        ({"image": np.full((3, 4, 6), 255.0)}, r"image of float64 .*integers"),
        ({"mask": np.full((3, 4, 6), 255, np.uint8)}, r"mask of uint8 with the values \[255\].*that are 0 or 1"),
        ({"mask": np.ones((3, 4, 6), np.float32)}, "mask of float32"),
        ({"mask": -np.ones((3, 4, 6), np.int8)}, r"mask of int8 with the values \[-1\]"),
        ({"label": np.array([0, 1, 2])}, r"label of int64 with the values \[0, 1, 2\].*that are 0 or 1"),
        ({"label": np.array([0.0, 1.0, 1.0])}, "label of float64"),
        ({"label": np.array(["0", "1", "1"])}, "label of <U1"),
    ],
)
def test_bad_arrays_get_one_clear_error(saved, changes, message):
    with pytest.raises(DataError, match=f"^got {message}") as raised:
        Crosses.from_npz(saved(**changes))
    assert "some.npz" in str(raised.value)


@pytest.mark.parametrize("gone", ["image", "mask", "label"])
def test_file_without_an_array_says_which(tmp_path, gone):
    left = {name: array for name, array in arrays().items() if name != gone}
    np.savez(tmp_path / "some.npz", **left)
    with pytest.raises(DataError, match=rf"some\.npz without \['{gone}'\]; needed the arrays"):
        Crosses.from_npz(tmp_path / "some.npz")


def test_missing_file_and_folder_say_that_there_is_no_file(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(DataError, match="where there is no file"):
            Crosses.from_npz(path)


@pytest.mark.parametrize("damage", ["empty", "text", "npy", "cut", "flipped"])
def test_damaged_file_gets_one_clear_error(saved, damage):
    path = saved()
    whole = path.read_bytes()
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, arrays()["image"])
    else:
        flipped = bytearray(whole)
        flipped[100:140] = bytes(255 - byte for byte in whole[100:140])
        contents = {"empty": b"", "text": b"two crosses", "cut": whole[: len(whole) // 2], "flipped": bytes(flipped)}
        path.write_bytes(contents[damage])
    with pytest.raises(DataError, match="is damaged, or holds Python objects"):
        Crosses.from_npz(path)


class Payload:
    """Unpickling an instance makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_pickled_objects_are_refused_and_never_run(saved, tmp_path):
    folder = tmp_path / "made by unpickling"
    label = np.array([0, 1, Payload(str(folder))], dtype=object)
    with pytest.raises(DataError, match="Python objects"):
        Crosses.from_npz(saved(label=label))
    assert not folder.exists()
    with np.load(tmp_path / "some.npz", allow_pickle=True) as archive:
        archive["label"]
    assert folder.exists(), "the payload would not have run anyway, so that this test shows nothing"
