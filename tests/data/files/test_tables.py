import pytest

from attribguard.data.files.refusals import Refusals
from attribguard.data.files.tables import read_list, read_table
from attribguard.errors import DataError


def read(path, columns=("file", "label"), on_error="raise"):
    refusals = Refusals(on_error)
    return list(read_table(path, columns, refusals)), refusals.skipped


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    "content",
    [
        "file,label,note\na.png,cat,x\nb.png,dog,\n",
        "\ufefffile,label,note\r\na.png,cat,x\r\nb.png,dog,\r\n",
        " file , label ,note,,\na.png , cat,x,,\n b.png,dog,,,\n",
        'file,label,note\n"a.png","cat","x"\n"b.png",dog,""',
        "file,label,note\na.png,cat,x,,\nb.png,dog,",
    ],
    ids="plain windows spaces quotes commas".split(),
)
def test_cells_go_by_their_columns_names(tmp_path, content):
    rows, _ = read(write(tmp_path / "t.csv", content))
    assert rows == [
        (2, {"file": "a.png", "label": "cat", "note": "x"}),
        (3, {"file": "b.png", "label": "dog", "note": ""}),
    ]


def test_lines_count_those_within_quotes_and_empty_ones(tmp_path):
    rows, _ = read(write(tmp_path / "t.csv", 'file,label\n\n"a\nb",cat\nc,dog\n'))
    assert [(number, cells["file"]) for number, cells in rows] == [(4, "a\nb"), (5, "c")]


@pytest.mark.parametrize("line", ["b.png", "b.png,dog,x", "b.png,dog,,x"])
def test_a_line_of_another_number_of_cells_is_refused(tmp_path, line):
    path = write(tmp_path / "t.csv", f"file,label\na.png,cat\n{line}\nc.png,cat\n")
    with pytest.raises(DataError, match=r"line 3 of .*t\.csv"):
        read(path)
    rows, skipped = read(path, on_error="skip")
    assert [cells["file"] for _, cells in rows] == ["a.png", "c.png"]
    assert [file for file, _ in skipped] == ["b.png"]


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "'file'"),
        ("file;label\n", "'file'"),
        ("file,Label\n", "'label'"),
        ("file,label,file\n", "'file', or has it twice"),
        (b"file,label\na,\xff\n", "cannot be read"),
        ('file,label\na,cat\n"b,dog\n', "cannot be read from line 3 on"),
        ('file,label\n"a"b,cat\n', "cannot be read"),
        ("file,label\n" + "x" * 200_000 + ",cat\n", "field"),
    ],
    ids="empty semicolons case twice utf8 open quote field".split(),
)
def test_what_is_no_such_table_is_an_error_in_either_manner(tmp_path, content, words, on_error):
    path = write(tmp_path / "t.csv", content)
    with pytest.raises(DataError, match=words) as raised:
        read(path, on_error=on_error)
    assert str(path) in raised.value.got


def test_a_missing_table_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match=r"t\.csv, which does not exist"):
        read(tmp_path / "t.csv")


def test_a_table_is_read_line_by_line(tmp_path):
    rows = read_table(write(tmp_path / "t.csv", b"file,label\na,b\n" + b"\xff" * 300_000), ["file"], Refusals("raise"))
    with pytest.raises(DataError):
        list(rows)
    path = write(tmp_path / "u.csv", "file,label\n" + "a,b\n" * 50_000 + '"')
    rows = read_table(path, ["file"], Refusals("raise"))
    assert next(rows)[0] == 2  # before the end, which is broken, is seen


def test_a_list_gives_the_lines_of_its_names(tmp_path):
    assert read_list(write(tmp_path / "l.txt", "a.png\r\n\r\n b.png \r\n")) == {"a.png": 1, "b.png": 3}


def test_a_bad_list_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match=r"'a' again \(line 3 of .*first in line 1"):
        read_list(write(tmp_path / "l.txt", "a\nb\na\n"))
    with pytest.raises(DataError, match="cannot be read"):
        read_list(write(tmp_path / "l.txt", b"\xff"))
    with pytest.raises(DataError, match="does not exist"):
        read_list(tmp_path / "m.txt")
