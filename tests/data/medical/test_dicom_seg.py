import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribguard.data.medical.slices import read_slices
from attribguard.errors import DataError

pytest.importorskip("SimpleITK", reason="SimpleITK writes the files, and is not installed")
pydicom = pytest.importorskip("pydicom", reason="pydicom reads the files, and is not installed")

from tests.data.medical.ct_files import ROOT, edit, filled, grid, item, uid, write_segmentation, write_series  # noqa: E402

SHAPE = (4, 5, 7)  # 35 pixels a frame: frames of single bits do not start with a byte
RNG = np.random.default_rng(0)
HU = RNG.integers(-1000, 2000, SHAPE).astype(np.int16)
MARKED = RNG.random((6, *SHAPE[1:])) < 0.4
EMPTY = np.zeros(SHAPE[1:])


@pytest.fixture
def ct():
    return filled(grid(SHAPE), HU)


@pytest.fixture
def folder(tmp_path, ct):
    write_series(tmp_path / "ct", ct)
    return tmp_path


def masks(slices):
    return np.stack([one["mask"][0].numpy() for one in slices])


def test_frames_go_to_the_slices_that_they_name_and_the_rest_of_the_series_is_empty(folder, ct):
    frames = [(MARKED[0], 3, 1), (MARKED[1], 0, 1), (MARKED[2], 2, 1)]
    write_segmentation(folder / "seg.dcm", ct, frames)
    slices = read_slices(folder)
    assert slices.annotated.all() and slices.files == [f"ct/000{number}.dcm" for number in (1, 2, 3, 4)]
    np.testing.assert_array_equal(masks(slices), [MARKED[1], EMPTY, MARKED[2], MARKED[0]])


def test_series_that_was_not_segmented_is_not_annotated(folder, ct):
    write_series(folder / "other", ct, series="2", patient="p2")
    write_segmentation(folder / "ct" / "seg.dcm", ct, [(MARKED[0], 1, 1)])
    slices = read_slices(folder)
    assert slices.annotated.tolist() == [True] * 4 + [False] * 4
    assert masks(slices)[4:].all()


def test_fractions_are_shares_of_the_highest_value(folder, ct):
    shares = RNG.integers(0, 201, (2, *SHAPE[1:]))
    write_segmentation(folder / "seg.dcm", ct, [(shares[0], 0, 1), (shares[1], 1, 1)], most=200)
    np.testing.assert_allclose(masks(read_slices(folder))[:2], shares / 200, rtol=1e-6)


def test_segments_are_chosen_by_label_and_united(folder, ct):
    frames = [(MARKED[0], 0, 1), (MARKED[1], 0, 2), (MARKED[2], 1, 3), (MARKED[3], 2, 2)]
    write_segmentation(folder / "seg.dcm", ct, frames, labels=("liver", "tumour", "cyst"))
    everything = masks(read_slices(folder))
    np.testing.assert_array_equal(everything, [MARKED[0] | MARKED[1], MARKED[2], MARKED[3], EMPTY])
    chosen = masks(read_slices(folder, segments=["tumour", "cyst"]))
    np.testing.assert_array_equal(chosen, [MARKED[1], MARKED[2], MARKED[3], EMPTY])
    with pytest.raises(DataError, match=r"\['cyst', 'liver', 'tumour'\] and none of \['spleen'\]"):
        read_slices(folder, segments=["spleen"])


def test_two_segmentations_of_a_slice_are_united(folder, ct):
    write_segmentation(folder / "a.dcm", ct, [(MARKED[0], 1, 1)])
    write_segmentation(folder / "b.dcm", ct, [(MARKED[1], 1, 1)])
    np.testing.assert_array_equal(masks(read_slices(folder))[1], MARKED[0] | MARKED[1])


def seg(ct, path, **changes):
    write_segmentation(path, ct, [(MARKED[0], 0, 1), (MARKED[1], 1, 1)], **changes)


def without(ct, path, name):
    seg(ct, path)
    dataset = pydicom.dcmread(path)
    del dataset.PerFrameFunctionalGroupsSequence[1][name]
    dataset.save_as(path)


def of_two_slices(ct, path):
    seg(ct, path)
    dataset = pydicom.dcmread(path)
    sources = dataset.PerFrameFunctionalGroupsSequence[1].DerivationImageSequence[0].SourceImageSequence
    sources.append(item(ReferencedSOPInstanceUID=uid(3)))
    dataset.save_as(path)


def compressed(ct, path):
    seg(ct, path, most=255)
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    dataset.save_as(path)


DAMAGE = {
    "cut off": (lambda ct, path: (seg(ct, path), path.write_bytes(path.read_bytes()[:-4]))[1], "cannot be read|bytes"),
    "too short": (lambda ct, path: seg(ct, path, PixelData=b"\0" * 8), "holds 8 bytes of pixels .* says 9"),
    "no pixels": (lambda ct, path: (seg(ct, path), edit(path, PixelData=None))[1], "has no pixel data"),
    "another width": (lambda ct, path: seg(ct, path, Columns=16), "holds 10 bytes of pixels .* says 20"),
    "a frame more": (lambda ct, path: seg(ct, path, NumberOfFrames=3), "in 3 frames, and lists 2"),
    "no groups": (lambda ct, path: seg(ct, path, PerFrameFunctionalGroupsSequence=None), "cannot be read"),
    "a label map": (lambda ct, path: seg(ct, path, SegmentationType="LABELMAP"), "of the type 'LABELMAP'"),
    "8 bits for BINARY": (lambda ct, path: seg(ct, path, BitsAllocated=8), "'BINARY' in 8 bits"),
    "compressed": (compressed, "in 8 bits, as RLE Lossless"),
    "highest value 0": (lambda ct, path: seg(ct, path, most=255, MaximumFractionalValue=0), "MaximumFractionalValue 0"),
    "an unknown segment": (
        lambda ct, path: write_segmentation(path, ct, [(MARKED[0], 0, 2)]),
        "frame 1 of segment 2, which it does not describe",
    ),
    "no segment": (
        lambda ct, path: without(ct, path, "SegmentIdentificationSequence"),
        "frame 2 without SegmentIdentificationSequence",
    ),
    "no source": (lambda ct, path: without(ct, path, "DerivationImageSequence"), "without DerivationImageSequence"),
    "two sources": (of_two_slices, "frame 2 drawn on 2 slices"),
    "slices elsewhere": (
        lambda ct, path: seg(ct, path, source=lambda index, series: f"{ROOT}7.{index}"),
        r"2 slices that are not in the folder, such as .*7\.0",
    ),
    "another series": (lambda ct, path: seg(ct, path, series="5"), "2 slices that are not in the folder"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_bad_segmentation_is_one_error_that_names_it_or_is_listed(folder, ct, kind):
    make, words = DAMAGE[kind]
    make(ct, folder / "seg.dcm")
    with pytest.raises(DataError, match=words) as caught:
        read_slices(folder)
    assert "seg.dcm" in str(caught.value)
    slices = read_slices(folder, on_error="skip")
    assert len(slices) == 4 and slices.skipped == [("seg.dcm", str(caught.value))]


SHIFTED = grid(SHAPE, origin=(-30, -19, 100))
TURNED = grid(SHAPE, direction=np.diag([1.0, -1.0, -1.0]))


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (SHIFTED, "has frame 1 at another place than ct/0001.dcm"),
        (TURNED, "has frame 1 at another place than ct/0001.dcm"),
        (grid((4, 5, 8)), r"has frames of \(5, 8\) for ct/0001.dcm of \(5, 7\)"),
    ],
)
def test_frames_that_do_not_lie_on_their_slices_are_an_error_when_these_are_read(folder, image, words):
    mask = np.ones(image.GetSize()[1::-1])
    write_segmentation(folder / "seg.dcm", image, [(mask, 0, 1)])
    slices = read_slices(folder)
    with pytest.raises(DataError, match=words):
        slices[0]


def test_values_above_the_highest_are_an_error(folder, ct):
    write_segmentation(folder / "seg.dcm", ct, [(MARKED[0] * 101, 0, 1)], most=100)
    with pytest.raises(DataError, match="values above 100"):
        read_slices(folder)[0]


def test_slices_that_a_skipped_segmentation_leaves_without_a_mask_are_not_annotated(folder, ct):
    seg(ct, folder / "seg.dcm", SegmentationType="LABELMAP")
    assert not read_slices(folder, on_error="skip").annotated.any()
    with pytest.raises(DataError, match="without a CT slice that can be read; 5 files were skipped"):
        read_slices(folder, on_error="skip", masks_needed=True)


def test_a_slice_that_is_missing_does_not_cost_the_others_their_mask(folder, ct):
    seg(ct, folder / "seg.dcm")
    (folder / "ct" / "0001.dcm").unlink()
    slices = read_slices(folder, on_error="skip")
    assert slices.annotated.all() and [file for file, _ in slices.skipped] == ["seg.dcm"]
    np.testing.assert_array_equal(masks(slices), [MARKED[1], EMPTY, EMPTY])


def test_frames_that_are_not_there_cost_no_memory(folder, ct):
    seg(ct, folder / "seg.dcm", Rows=60000, Columns=60000)
    tracemalloc.start()
    with pytest.raises(DataError, match="says 900000000"):
        read_slices(folder)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 2**22


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, ct = tmp_path_factory.mktemp("fuzz"), filled(grid((1, 5, 7)), HU[:1])
    write_series(folder, ct)
    return write_segmentation(folder / "seg.dcm", ct, [(MARKED[0], 0, 1)])


@given(st.data())
def test_whatever_bytes_are_changed_nothing_but_a_mask_or_a_data_error_comes(whole, data):
    original = whole.read_bytes()
    content = bytearray(original)
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(128, len(content) - 1))] = data.draw(st.integers(0, 255))
    whole.write_bytes(content)
    words = str(whole.parent)
    try:
        mask = read_slices(whole.parent)[0]["mask"]
        assert mask.min() >= 0 and mask.max() <= 1
    except DataError as error:
        words = str(error)
    finally:
        whole.write_bytes(original)
    assert str(whole.parent) in words
