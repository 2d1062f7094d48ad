import gzip
import pickle
import tracemalloc

import pytest
import torch

from attribguard.data import read_idx
from attribguard.errors import DataError
from tests.data.idx_files import idx_bytes, write_idx

LARGE = 2**32 - 1


def test_bytes_come_in_the_files_order(tmp_path):
    path = write_idx(tmp_path / "a.gz", (2, 2, 3), [0, 1, 2, 3, 4, 5, 250, 251, 252, 253, 254, 255])
    expected = torch.tensor([[[0, 1, 2], [3, 4, 5]], [[250, 251, 252], [253, 254, 255]]], dtype=torch.uint8)
    torch.testing.assert_close(read_idx(path, dims=3), expected)


def test_lengths_have_their_highest_byte_first(tmp_path):
    assert read_idx(write_idx(tmp_path / "a.gz", (0x0102,), bytes(0x0102)), dims=1).shape == (0x0102,)


def test_files_larger_than_one_reading_step_are_whole(tmp_path):
    payload = bytes(range(251)) * 9000  # 2.2 MB, and 251 divides no step
    read = read_idx(write_idx(tmp_path / "a.gz", (9000, 251), payload), dims=2)
    assert bytes(read.flatten().tolist()) == payload


def test_a_file_of_several_gzip_members_is_one_payload(tmp_path):
    whole = idx_bytes((4,), [1, 2, 3, 4])
    (tmp_path / "a.gz").write_bytes(gzip.compress(whole[:9]) + gzip.compress(whole[9:]))
    assert read_idx(tmp_path / "a.gz", dims=1).tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (idx_bytes((3,), [1, 2, 3]), "cannot be read"),
        (b"", "starts with nothing"),
        (gzip.compress(idx_bytes((300,), range(250)) + bytes(50))[:-30], "cannot be read"),
        (gzip.compress(idx_bytes((3,), [1, 2, 3]))[:-8] + bytes(8), "cannot be read"),
        (gzip.compress(b"")[:10] + bytes([255] * 20), "cannot be read"),
        (gzip.compress(b""), "starts with nothing"),
        (gzip.compress(idx_bytes((3,), [1, 2, 3], start=b"\0\0\x0d\1")), "starts with 00 00 0d 01"),
        (gzip.compress(idx_bytes((3,), [1, 2, 3], start=b"\1\0\x08\1")), "starts with 01 00 08 01"),
        (gzip.compress(idx_bytes((1, 3), [1, 2, 3])), "starts with 00 00 08 02"),
        (gzip.compress(pickle.dumps([1, 2, 3])), "starts with 80"),
        (gzip.compress(b"\0\0\x08\1\0\0"), "0 bytes"),
        (gzip.compress(idx_bytes((3,), [1, 2])), r"\(3,\) and which then holds 2 bytes"),
        (gzip.compress(idx_bytes((3,), [1, 2, 3, 4])), "4 bytes or more"),
        (gzip.compress(idx_bytes((0,), [])), r"\(0,\)"),
    ],
    ids="plain empty cut checksum deflate nothing type zeros axes pickle header short long none".split(),
)
def test_a_broken_file_is_one_clear_error(tmp_path, content, words):
    path = tmp_path / "labels.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=words) as raised:
        read_idx(path, dims=1)
    assert str(path) in raised.value.got


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.mkdir()], ids=["missing", "folder"])
def test_a_path_without_a_file_is_one_clear_error(tmp_path, make):
    make(tmp_path / "a.gz")
    with pytest.raises(DataError, match="cannot be read"):
        read_idx(tmp_path / "a.gz", dims=1)


@pytest.mark.parametrize("lengths", [(LARGE, LARGE, LARGE), (2_000_000, 28, 28)])
def test_a_header_that_promises_too_much_costs_no_memory(tmp_path, lengths):
    path = write_idx(tmp_path / "a.gz", lengths, bytes(10))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="in a file of"):
            read_idx(path, dims=3)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()


def test_a_payload_beyond_the_header_is_not_unpacked(tmp_path):
    path = write_idx(tmp_path / "a.gz", (10,), bytes(50_000_000))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="11 bytes or more"):
            read_idx(path, dims=1)
        assert tracemalloc.get_traced_memory()[1] < 8e6
    finally:
        tracemalloc.stop()
