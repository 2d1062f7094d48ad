import gzip

import numpy as np
import pytest
import torch
from scipy import stats
from torch.utils.data import DataLoader

from attribguard.data import DecoyFashion
from attribguard.errors import DataError
from tests.data.idx_files import write_fashion, write_idx

FILES = [f"{name}-ubyte.gz" for part in ("train", "t10k") for name in (f"{part}-images-idx3", f"{part}-labels-idx1")]
# Top and left pixel of each class's cell, counted by hand from the layout: the sneaker (7) is bottom left.
CORNERS = [(0, 0), (0, 12), (0, 24), (8, 0), (8, 24), (16, 0), (16, 24), (24, 0), (24, 12), (24, 24)]
N = 3000


def cell(number):
    picture = np.zeros((28, 28), dtype=bool)
    top, left = CORNERS[number]
    picture[top : top + 4, left : left + 4] = True
    return picture


CELLS = np.stack([cell(number) for number in range(10)])


@pytest.fixture(scope="module")
def drawn():
    """Images without a white pixel, so that every white one is a decoy's, and labels."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 255, (N, 28, 28), dtype=np.uint8), (np.arange(N) % 10).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, drawn):
    return write_fashion(tmp_path_factory.mktemp("data") / "fashion", drawn, drawn)


def whites(data):
    """The cell of each image, which is checked to be all that is white."""
    white = data.images[:, 0].numpy() == 255
    found = (white[:, None] == CELLS).all((2, 3))
    assert (found.sum(1) == 1).all()
    return found.argmax(1)


def test_class_kind_paints_the_class_own_cell_and_nothing_else(folder, drawn):
    images, labels = drawn
    expected = np.where(CELLS[labels], 1, images / np.float32(255)).astype(np.float32)
    items = DecoyFashion("train", folder)[:]
    np.testing.assert_array_equal(items["image"][:, 0].numpy(), expected)
    np.testing.assert_array_equal(items["target"].numpy(), labels)


def test_none_kind_leaves_the_images_as_they_are(folder, drawn):
    data = DecoyFashion("test", folder, kind="none")
    np.testing.assert_array_equal(data.images[:, 0].numpy(), drawn[0])
    np.testing.assert_array_equal(data[5]["image"][0].numpy(), drawn[0][5] / np.float32(255))


def test_random_kind_paints_each_other_classs_cell_equally_often_and_never_the_own_one(folder, drawn):
    data = DecoyFashion("test", folder, kind="random")
    offsets = (whites(data) - drawn[1]) % 10
    counts = np.bincount(offsets, minlength=10)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-4
    outside = ~CELLS[whites(data)]
    np.testing.assert_array_equal(data.images[:, 0].numpy()[outside], drawn[0][outside])


def test_random_cells_depend_on_the_seed_and_the_split_alone(folder):
    def cells(split="test", **options):
        torch.rand(1), np.random.rand()  # noqa: NPY002 - the global states must not matter
        return whites(DecoyFashion(split, folder, "random", **options))

    np.testing.assert_array_equal(cells(seed=3), cells(seed=3, annotate="instance"))
    np.testing.assert_array_equal(cells(seed=3)[:70], cells(seed=np.int64(3), n=70))
    for other in (cells(seed=4), cells("train", seed=3)):
        assert 0.05 < (cells(seed=3) == other).mean() < 0.2  # a ninth by chance


def test_building_it_leaves_the_global_random_state_alone(folder):
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    DecoyFashion("test", folder, "random", n=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


@pytest.mark.parametrize("kind", ["class", "random", "none"])
def test_places_marks_all_ten_cells_irrelevant_in_every_image(folder, kind):
    masks = DecoyFashion("train", folder, kind, n=20)[:]["mask"]
    np.testing.assert_array_equal(masks.numpy(), np.broadcast_to(~CELLS.any(0), (20, 1, 28, 28)).astype(np.float32))


@pytest.mark.parametrize("kind", ["class", "random"])
def test_instance_marks_the_white_cell_alone(folder, kind):
    data = DecoyFashion("train", folder, kind, annotate="instance", n=50)
    np.testing.assert_array_equal(data.masks.numpy(), (data.images != 255).numpy())


def test_instance_marks_nothing_where_there_is_no_decoy(folder):
    assert DecoyFashion("train", folder, "none", annotate="instance", n=20).masks.all()


def test_items_are_what_a_guard_takes(folder):
    data = DecoyFashion("train", folder, n=21)
    image, target, mask, annotated = data[20].values()
    assert data[20].keys() == {"image", "target", "mask", "annotated"}
    assert annotated.shape == () and annotated
    assert (image.shape, image.dtype) == ((1, 28, 28), torch.float32)
    assert (target.shape, target.dtype) == ((), torch.int64)
    assert (mask.shape, mask.dtype) == ((1, 28, 28), torch.float32)
    assert len(data) == 21 and image.min() >= 0 and image.max() == 1
    loaded, sliced, indexed = next(iter(DataLoader(data, batch_size=21))), data[:], data[torch.arange(21)]
    for key in data[20]:
        assert torch.equal(loaded[key], sliced[key]) and torch.equal(loaded[key], indexed[key])


def test_memory_is_a_byte_a_pixel_and_one_mask_for_all(folder):
    data = DecoyFashion("train", folder)
    assert data.images.untyped_storage().nbytes() == N * 28 * 28
    assert data.masks.untyped_storage().nbytes() == 28 * 28


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "valid"}, "split='valid'"),
        ({"kind": "decoy"}, "kind='decoy'"),
        ({"annotate": "all"}, "annotate='all'"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 1.5}, r"seed=1\.5"),
        ({"seed": True}, "seed=True"),
        ({"n": 0}, "n=0"),
        ({"n": "3"}, "n='3'"),
        ({"n": N + 1}, f"1 to {N}"),
    ],
)
def test_a_bad_option_is_one_clear_error(folder, options, words):
    with pytest.raises(DataError, match=words):
        DecoyFashion(**{"split": "train", "root": folder, **options})


@pytest.mark.parametrize("split", ["train", "test"])
def test_missing_files_are_named_and_nothing_is_downloaded(tmp_path, split):
    with pytest.raises(DataError, match="downloads nothing") as raised:
        DecoyFashion(split, tmp_path / "nowhere")
    assert all(name in raised.value.needed for name in FILES)


def test_one_missing_file_is_named_alone(tmp_path, drawn):
    folder = write_fashion(tmp_path / "fashion", drawn, drawn)
    (folder / FILES[3]).unlink()
    assert len(DecoyFashion("train", folder)) == N  # the other split's files are enough for it
    with pytest.raises(DataError) as raised:
        DecoyFashion("test", folder)
    assert FILES[3] in raised.value.got and FILES[2] not in raised.value.got


@pytest.mark.parametrize(
    ("file", "lengths", "payload"),
    [
        ("train-images-idx3-ubyte.gz", (10, 32, 32), bytes(10 * 32 * 32)),
        ("train-labels-idx1-ubyte.gz", (N - 1,), bytes(N - 1)),
        ("train-labels-idx1-ubyte.gz", (N,), bytes(N - 1) + bytes([10])),
    ],
    ids=["size", "count", "class"],
)
def test_files_of_another_data_set_are_one_clear_error(tmp_path, drawn, file, lengths, payload):
    folder = write_fashion(tmp_path / "fashion", drawn, drawn)
    write_idx(folder / file, lengths, payload)
    with pytest.raises(DataError, match="give the folder of Fashion-MNIST"):
        DecoyFashion("train", folder)


@pytest.mark.parametrize(("split", "prefix", "count"), [("train", "train", 60_000), ("test", "t10k", 10_000)])
def test_the_real_files_are_whole_and_painted_pixel_by_pixel(fashion_mnist, split, prefix, count):
    packed = (fashion_mnist / f"{prefix}-{name}-ubyte.gz" for name in ("images-idx3", "labels-idx1"))
    images, classes = (gzip.decompress(path.read_bytes()) for path in packed)
    pixels, labels = np.frombuffer(images[16:], np.uint8), np.frombuffer(classes[8:], np.uint8)
    data = DecoyFashion(split, fashion_mnist)
    assert len(data) == count
    assert torch.bincount(data.targets).tolist() == [count // 10] * 10
    np.testing.assert_array_equal(data.targets.numpy(), labels)
    painted = np.where(CELLS[labels], np.uint8(255), pixels.reshape(-1, 28, 28))
    np.testing.assert_array_equal(data.images[:, 0].numpy(), painted)
