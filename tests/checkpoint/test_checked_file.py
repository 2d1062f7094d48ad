"""A file that was damaged, cut off or written by something else is never loaded, and one with code is not run."""

import hashlib
import io
import os
import pickle

import numpy as np
import pytest
import torch

from attribguard.checkpoint.checked_file import read_checked, write_checked
from attribguard.errors import AttribGuardError, DataError, TypeMismatchError
from tests.checkpoint.differences import differences

CONTENT = {"weights": torch.arange(5.0), "step": 3, "more": [None, True, "text", (1, 2.5), {"a": torch.zeros(0)}]}


@pytest.fixture
def file(tmp_path):
    write_checked(tmp_path / "run.ckpt", CONTENT)
    return tmp_path / "run.ckpt"


def with_header(payload, version=1):
    return f"attribguard checkpoint {version} {hashlib.sha256(payload).hexdigest()}\n".encode() + payload


def saved(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def test_what_is_read_is_what_was_written_and_nothing_else_is_left_in_the_folder(file):
    assert differences(read_checked(file), CONTENT) == []
    assert [path.name for path in file.parent.iterdir()] == ["run.ckpt"]


def test_a_flipped_bit_anywhere_is_refused(file):
    content = file.read_bytes()
    places = [*range(120), *range(120, len(content), 37), len(content) - 1]
    for place in places:
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        with pytest.raises(DataError, match=r"no checkpoint of a training|of version|damaged"):
            read_checked(file)


def test_a_file_that_was_cut_off_anywhere_is_refused(file):
    content = file.read_bytes()
    for length in [*range(120), *range(120, len(content), 37), len(content) - 1]:
        file.write_bytes(content[:length])
        with pytest.raises(DataError, match=r"no checkpoint of a training|damaged"):
            read_checked(file)
    file.write_bytes(content + b"\n")
    with pytest.raises(DataError, match="damaged"):
        read_checked(file)


class Code:
    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_code_in_a_file_is_not_run(tmp_path):
    code = Code()
    code.folder = str(tmp_path / "it was run")
    file = tmp_path / "run.ckpt"
    for content, words in (
        (pickle.dumps(code), "no checkpoint of a training"),
        (saved(code), "no checkpoint of a training"),
        (with_header(saved(code)), "what could run code is not loaded"),
        (with_header(pickle.dumps(code, protocol=2)), "what could run code is not loaded"),
    ):
        file.write_bytes(content)
        with pytest.raises(DataError, match=words):
            read_checked(file)
    assert [path.name for path in tmp_path.iterdir()] == ["run.ckpt"]
    torch.load(io.BytesIO(saved(code)), weights_only=False)
    assert (tmp_path / "it was run").is_dir()  # what would have happened


@pytest.mark.parametrize("content", [b"", b"\n", b"text\n", b"\x80\x02", saved({"weights": torch.zeros(2)})])
def test_a_file_of_something_else_is_refused(tmp_path, content):
    (tmp_path / "run.ckpt").write_bytes(content)
    with pytest.raises(DataError, match="no checkpoint of a training"):
        read_checked(tmp_path / "run.ckpt")


def test_another_version_is_refused_by_its_number(tmp_path):
    (tmp_path / "run.ckpt").write_bytes(with_header(saved(CONTENT), version=12))
    with pytest.raises(DataError, match=r"of version 12; needed version 1\b"):
        read_checked(tmp_path / "run.ckpt")


def test_what_is_not_there_is_refused(tmp_path):
    for path, words in ((tmp_path / "none.ckpt", "No such file"), (tmp_path, "is no file")):
        with pytest.raises(AttribGuardError, match=words):
            read_checked(path)


@pytest.mark.parametrize("value", [np.float64(0.5), Code, lambda: 0, np.zeros(2)])
def test_what_could_not_be_read_back_is_refused_when_it_is_written(file, value):
    content = file.read_bytes()
    with pytest.raises(TypeMismatchError, match="plain Python values"):
        write_checked(file, {"rate": value})
    assert file.read_bytes() == content
