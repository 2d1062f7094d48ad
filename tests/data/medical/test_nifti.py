import gzip
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attribguard.data.medical.nifti import Shelf, open_volume
from attribguard.errors import DataError

sitk = pytest.importorskip("SimpleITK", reason="SimpleITK writes the files, and is not installed")
pytest.importorskip("nibabel", reason="nibabel reads the files, and is not installed")

VALUES = np.random.default_rng(0).integers(0, 100, (4, 3, 5))  # (slices, rows, columns), as SimpleITK has it
ROW, COLUMN = (1, 1), (0, 1)
# Places in the header of NIfTI-1, from its definition.
DIM, DATATYPE, BITPIX, VOX_OFFSET, SLOPE, INTERCEPT, QFORM_CODE, SFORM_CODE, SROW_X, MAGIC = (
    40, 70, 72, 108, 112, 116, 252, 254, 280, 344
)  # fmt: skip


def write(path, values=VALUES):
    image = sitk.GetImageFromArray(values)
    image.SetSpacing([0.5, 0.75, 2.0][: image.GetDimension()] + [1.0] * (image.GetDimension() - 3))
    sitk.WriteImage(image, str(path))
    return path


def patch(path, at, form, *values):
    """Overwrite bytes of a file, packed or not."""
    packed = path.suffix == ".gz"
    content = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    struct.pack_into(form, content, at, *values)
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    return path


def planes(path):
    """(Z, H, W, C), through the shelf."""
    volume, shelf = open_volume(path), Shelf()
    return np.stack([volume.cut(shelf(volume), z, ROW, COLUMN) for z in range(volume.shape[2])])


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"])
def test_every_type_of_real_numbers_is_read(tmp_path, name, dtype):
    path = write(tmp_path / name, VALUES.astype(dtype))
    volume = open_volume(path)
    assert volume.shape == (5, 3, 4, 1) and volume.dtype == np.dtype(dtype)
    np.testing.assert_allclose(volume.affine, np.diag([-0.5, -0.75, 2, 1]), atol=1e-6)
    np.testing.assert_array_equal(planes(path)[..., 0], VALUES)


def test_big_endian_files_are_read(tmp_path):
    values = VALUES.astype(">i2")
    header = bytearray(352)
    struct.pack_into(">i", header, 0, 348)
    struct.pack_into(">8h", header, DIM, 3, 5, 3, 4, 1, 1, 1, 1)
    struct.pack_into(">hh", header, DATATYPE, 4, 16)
    struct.pack_into(">8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into(">f", header, VOX_OFFSET, 352)
    struct.pack_into(">h", header, SFORM_CODE, 1)
    struct.pack_into(">12f", header, SROW_X, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    header[MAGIC : MAGIC + 4] = b"n+1\0"
    (tmp_path / "a.nii").write_bytes(header + values.tobytes())
    np.testing.assert_array_equal(planes(tmp_path / "a.nii")[..., 0], VALUES)


def test_second_version_of_the_format_is_read(tmp_path):
    header = bytearray(544)
    struct.pack_into("<i8s", header, 0, 540, b"n+2\0\r\n\x1a\n")
    struct.pack_into("<hh8q", header, 12, 4, 16, 3, 5, 3, 4, 1, 1, 1, 1)
    struct.pack_into("<8d", header, 104, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into("<q", header, 168, 544)
    struct.pack_into("<ii", header, 344, 0, 1)
    struct.pack_into("<12d", header, 400, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0)
    (tmp_path / "a.nii").write_bytes(header + VALUES.astype("<i2").tobytes())
    np.testing.assert_array_equal(planes(tmp_path / "a.nii")[..., 0], VALUES)


def test_scale_of_the_header_is_applied_and_a_slope_of_0_means_none(tmp_path):
    path = write(tmp_path / "a.nii", VALUES.astype("i2"))
    patch(path, SLOPE, "<ff", 0.5, -3)
    np.testing.assert_array_equal(planes(path)[..., 0], VALUES * 0.5 - 3)
    np.testing.assert_array_equal(planes(path)[..., 0], sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
    patch(path, SLOPE, "<ff", 0, -3)
    np.testing.assert_array_equal(planes(path)[..., 0], VALUES)


@pytest.mark.parametrize("row", [(0, 1), (0, -1), (1, 1), (1, -1), (2, 1), (2, -1)])
@pytest.mark.parametrize("column", [(0, 1), (1, -1), (2, 1)])
def test_planes_are_cut_and_turned_as_asked(tmp_path, row, column):
    if row[0] == column[0]:
        return
    path = write(tmp_path / "a.nii")
    volume = open_volume(path)
    plane = volume.cut(volume.unpack(), 1, row, column)
    for (i, j), value in np.ndenumerate(plane[..., 0]):
        voxel = [1, 1, 1]
        voxel[row[0]] = i if row[1] > 0 else volume.shape[row[0]] - 1 - i
        voxel[column[0]] = j if column[1] > 0 else volume.shape[column[0]] - 1 - j
        assert value == VALUES[voxel[2], voxel[1], voxel[0]]


def test_fourth_axis_counts_the_values_of_a_voxel_and_a_picture_is_one_plane(tmp_path):
    four = np.stack([VALUES, VALUES + 100])
    path = tmp_path / "a.nii.gz"
    sitk.WriteImage(sitk.JoinSeries([sitk.GetImageFromArray(one) for one in four]), str(path))
    np.testing.assert_array_equal(planes(path), np.moveaxis(four, 0, -1))
    assert open_volume(write(tmp_path / "b.nii", VALUES[0].astype("u1"))).shape == (5, 3, 1, 1)


DAMAGE = {
    "no bytes": (lambda path: path.write_bytes(gzip.compress(b"") if path.suffix == ".gz" else b""), "does not start"),
    "text": (lambda path: path.write_text("no volume" * 99), "does not start|cannot be read"),
    "another magic": (lambda path: patch(path, MAGIC, "4s", b"ni1\0"), "has the magic b'ni1'"),
    "one axis": (lambda path: patch(path, DIM, "<h", 1), "1 axes"),
    "eight axes": (lambda path: patch(path, DIM, "<h", 8), "cannot be read|8 axes|does not start"),
    "a length of 0": (lambda path: patch(path, DIM + 2, "<h", 0), r"lengths \[0, 3, 4\]"),
    "a negative length": (lambda path: patch(path, DIM + 2, "<h", -5), r"lengths \[-5, 3, 4\]"),
    "five axes": (lambda path: patch(path, DIM, "<6h", 5, 5, 3, 2, 1, 2), "more than four axes"),
    "complex values": (lambda path: patch(path, DATATYPE, "<hh", 32, 64), "of type complex64"),
    "an unknown type": (lambda path: patch(path, DATATYPE, "<hh", 9999, 64), "cannot be read"),
    "no place": (lambda path: patch(path, QFORM_CODE, "<hh", 0, 0), "does not say how it lies in space"),
    "NaN in the affine": (lambda path: patch(path, SROW_X, "<f", np.nan), "has the affine"),
    "a flat affine": (lambda path: patch(path, SROW_X, "<3f", 0, 0, 0), "has the affine"),
    "an offset in the header": (lambda path: patch(path, VOX_OFFSET, "<f", 100), "cannot be read|from byte 100|says"),
    "an endless offset": (lambda path: patch(path, VOX_OFFSET, "<f", np.inf), "cannot be read"),
    "an endless intercept": (lambda path: patch(path, SLOPE, "<ff", 1, np.inf), "cannot be read"),
    "a shorter axis": (lambda path: patch(path, DIM + 2, "<h", 4), "holds .* where its header says"),
    "a longer axis": (lambda path: patch(path, DIM + 2, "<h", 6), "holds .* where its header says"),
    "the longest axes": (lambda path: patch(path, DIM + 2, "<3h", 32767, 32767, 32767), "holds 832 bytes|says"),
}


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", DAMAGE)
def test_bad_volume_is_one_error_that_names_it(tmp_path, name, kind):
    damage, words = DAMAGE[kind]
    path = write(tmp_path / name)
    damage(path)
    with pytest.raises(DataError, match=words) as caught:
        open_volume(path).unpack()
    assert name in str(caught.value)


@pytest.mark.parametrize("left", [0.02, 0.5, 0.99])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_file_that_is_cut_off_is_an_error(tmp_path, name, left):
    path = write(tmp_path / name, np.random.default_rng(0).integers(0, 256, (4, 30, 50)).astype("u1"))
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    with pytest.raises(DataError, match=name):
        open_volume(path).unpack()


def test_missing_file_and_folder_are_errors(tmp_path):
    for path in (tmp_path / "a.nii", tmp_path):
        with pytest.raises(DataError, match="does not exist or is no file"):
            open_volume(path)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_plane_with_nan_or_infinite_values_is_an_error_and_others_are_not(tmp_path, value):
    values = VALUES.astype("f4")
    values[2, 1, 1] = value
    path = write(tmp_path / "a.nii", values)
    volume = open_volume(path)
    volume.cut(volume.unpack(), 1, ROW, COLUMN)
    with pytest.raises(DataError, match=r"a\.nii, which holds NaN or infinite values"):
        volume.cut(volume.unpack(), 2, ROW, COLUMN)
    with pytest.raises(DataError, match="NaN"):
        volume.read_through()


def peak(call):
    tracemalloc.start()
    with pytest.raises(DataError):
        call()
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return used


def test_bomb_costs_no_more_memory_than_its_header_promises(tmp_path):
    path = write(tmp_path / "a.nii.gz", VALUES.astype("u1"))
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(2**27)))
    assert path.stat().st_size < 2**18
    assert peak(lambda: open_volume(path).unpack()) < 2**22


def test_header_that_promises_more_than_the_file_can_hold_costs_no_memory(tmp_path):
    path = patch(write(tmp_path / "a.nii.gz"), DIM + 2, "<3h", 2000, 2000, 2000)
    assert peak(lambda: open_volume(path)) < 2**22
    content = gzip.decompress(patch(write(tmp_path / "b.nii.gz"), DIM + 2, "<3h", 700, 700, 100).read_bytes())
    path = tmp_path / "b.nii.gz"  # long enough to hold as much, were it packed as tightly as gzip can
    path.write_bytes(gzip.compress(content, 1) + gzip.compress(np.random.default_rng(0).bytes(2**19), 1))
    volume = open_volume(path)
    assert peak(volume.unpack) < 2**24  # 400 million bytes were promised


def test_plane_of_a_plain_file_is_read_without_the_rest(tmp_path):
    path = write(tmp_path / "a.nii", np.zeros((64, 128, 128), "u1"))
    volume = open_volume(path)
    tracemalloc.start()
    volume.cut(Shelf()(volume), 3, ROW, COLUMN)
    used = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert used < 64 * 128 * 128 / 2


def test_shelf_keeps_the_last_volumes_and_is_empty_for_a_worker(tmp_path):
    volumes = [open_volume(write(tmp_path / f"{name}.nii.gz")) for name in "abc"]
    shelf = Shelf(keep=2)
    first = [shelf(volume) for volume in volumes[:2]]
    assert shelf(volumes[0]) is first[0]
    shelf(volumes[2])  # takes the place of the second
    assert shelf(volumes[0]) is first[0] and shelf(volumes[1]) is not first[1]
    fresh = pickle.loads(pickle.dumps(shelf))
    assert fresh(volumes[0]) is not first[0]
    assert len(pickle.dumps(shelf)) < 500


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return write(tmp_path_factory.mktemp("fuzz") / "a.nii")


@given(st.lists(st.tuples(st.integers(0, 351), st.integers(0, 255)), min_size=1, max_size=4))
def test_whatever_bytes_of_the_header_are_changed_nothing_but_values_or_a_data_error_comes(whole, changes):
    original = whole.read_bytes()
    content = bytearray(original)
    for at, value in changes:
        content[at] = value
    whole.write_bytes(content)
    words = str(whole)
    try:
        assert np.isfinite(planes(whole)).all()
    except DataError as error:
        words = str(error)
    finally:
        whole.write_bytes(original)
    assert str(whole) in words
