import pytest

from attribguard.errors import DataError
from attribguard.whole_files import check_writable, cut_half_line, write_files

NAMES = ("result.json", "saliency.png")


def test_files_are_written_into_a_new_folder(tmp_path):
    write_files(tmp_path / "a" / "b", {"one": b"1", "two": b"2"})
    assert {path.name: path.read_bytes() for path in (tmp_path / "a" / "b").iterdir()} == {"one": b"1", "two": b"2"}


def test_files_replace_those_of_their_names_and_no_others(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).write_text("old")
    write_files(tmp_path, {"one": b"new"})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"one": "new", "other": "old"}


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_writing_leaves_everything_as_it_was(tmp_path, error):
    (tmp_path / "one").write_text("old")

    def interrupted():
        yield b"n"
        assert (tmp_path / ".one.writing").read_bytes() == b"new"
        raise error

    with pytest.raises(error):
        write_files(tmp_path, {"one": b"new", "two": interrupted()})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"one": "old"}


def test_what_a_killed_process_left_is_taken_over(tmp_path):
    (tmp_path / "one").write_text("old")
    (tmp_path / ".one.writing").write_text("a half file, longer than the new one")
    write_files(tmp_path, {"one": (b"n", memoryview(b"ew"))})
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"one": "new"}


def test_asking_whether_a_folder_can_be_written_leaves_no_trace(tmp_path):
    check_writable(tmp_path, NAMES)
    check_writable(tmp_path / "a" / "b", NAMES)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("below", ["", "folder"])
def test_a_file_in_the_folders_place_is_refused(tmp_path, below):
    (tmp_path / "file").write_text("here")
    with pytest.raises(DataError, match="nothing can be written"):
        check_writable(tmp_path / "file" / below, NAMES)


def test_a_folder_that_takes_no_files_is_refused(tmp_path, monkeypatch):
    """Permissions would not stop a test that runs as root, so the system's answer is made."""

    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(DataError, match="Permission denied"):
        check_writable(tmp_path / "new", NAMES)


def test_a_folder_in_a_files_place_is_refused(tmp_path):
    (tmp_path / "saliency.png").mkdir()
    with pytest.raises(DataError, match=r"saliency\.png, a folder"):
        check_writable(tmp_path, NAMES)


def test_a_line_that_was_cut_off_is_taken_away_and_nothing_else(tmp_path):
    path = tmp_path / "rows.jsonl"
    for content, left in (
        ("one\ntwo é\nth", "one\ntwo é\n"),
        ("one\ntwo\n", "one\ntwo\n"),
        ("half", ""),
        ("", ""),
    ):
        path.write_bytes(content.encode())
        cut_half_line(path)
        assert path.read_bytes() == left.encode()
    path.write_bytes("one\né".encode()[:-1])  # within a letter
    cut_half_line(path)
    assert path.read_bytes() == b"one\n"
    cut_half_line(tmp_path / "none")
    assert not (tmp_path / "none").exists()
