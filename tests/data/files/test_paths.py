import pytest

from attribguard.data.files.paths import NamesInFolder, given_path, inside_folder
from attribguard.errors import DataError


@pytest.fixture(params=[inside_folder, lambda folder, name: NamesInFolder(folder).path(name)], ids=["one", "many"])
def path_of(request):
    """The two ways of asking, which must agree in all."""
    return request.param


def test_a_name_in_the_folder_is_its_path_there(path_of, tmp_path):
    assert path_of(tmp_path, "a.png") == tmp_path / "a.png"
    assert path_of(str(tmp_path), "images/b c.png") == tmp_path / "images" / "b c.png"


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        ".",
        "..",
        "../a",
        "a/../../b",
        "a/..",
        "/etc/passwd",
        "//a",
        "a//b",
        "a/",
        "a\\b",
        "..\\a",
        "c:a",
        "a\0b",
    ],
)
def test_a_name_that_may_lead_out_of_the_folder_is_one_clear_error(path_of, tmp_path, name):
    with pytest.raises(DataError) as raised:
        path_of(tmp_path, name)
    assert repr(name) in raised.value.got and str(tmp_path) in raised.value.got


def test_a_folder_beside_with_a_longer_name_is_not_inside(path_of, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data2").mkdir()
    (tmp_path / "data" / "out").symlink_to(tmp_path / "data2")
    with pytest.raises(DataError, match="leads out"):
        path_of(tmp_path / "data", "out/a.png")


def test_links_may_lead_within_the_folder_but_not_out_of_it(path_of, tmp_path):
    folder = tmp_path / "data"
    (folder / "real").mkdir(parents=True)
    (tmp_path / "secret.png").write_bytes(b"")
    (folder / "inner").symlink_to("real")
    (folder / "outer.png").symlink_to(tmp_path / "secret.png")
    (folder / "up").symlink_to("..")
    assert path_of(folder, "inner/a.png") == folder / "real" / "a.png"
    for name in ("outer.png", "up/secret.png", "up"):
        with pytest.raises(DataError, match="leads out"):
            path_of(folder, name)


def test_links_in_a_circle_are_one_clear_error(path_of, tmp_path):
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    try:
        path = path_of(tmp_path, "a/c.png")
    except DataError:
        return
    assert not path.exists()  # newer Pythons leave the circle as it is, and nothing opens


def test_the_folder_itself_may_be_a_link(path_of, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to("disk")
    assert path_of(tmp_path / "data", "a.png") == tmp_path / "disk" / "a.png"


def test_a_path_from_the_user_may_be_absolute_but_not_climb(tmp_path):
    assert given_path(tmp_path / "data", tmp_path / "t.csv") == tmp_path / "t.csv"
    assert given_path(tmp_path, "t.csv") == tmp_path / "t.csv"
    with pytest.raises(DataError):
        given_path(tmp_path, "../t.csv")


def test_links_to_folders_are_followed_once_and_links_to_files_each_time(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "inner").symlink_to("real")
    names = NamesInFolder(tmp_path)
    assert [names.path(f"inner/{name}") for name in "ab"] == [tmp_path / "real" / name for name in "ab"]
    (tmp_path / "real" / "b").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="leads out"):
        names.path("inner/b")
