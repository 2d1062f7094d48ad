from dataclasses import replace

from attribguard.reproduce import reproduce
from attribguard.reproduce.mean_maps import draw_maps
from attribguard.reproduce.records import read
from tests.reproduce.small import small, train


def looking(run):
    """A map that is bright in the row's own corner."""
    cells = [[0.0, 0.0], [0.0, 0.0]]
    cells[0][int(run.settings["weight"] > 1)] = 1.0 + run.seed
    return replace(train(run), maps={"saliency": cells} if run.final else {})


def test_tables_without_maps_have_no_such_picture(tmp_path):
    files = reproduce(small(), tmp_path)
    assert draw_maps(small(), "default", 2, read(files[0])) is None
    assert len(files) == 3


def test_maps_are_kept_in_the_rows_and_drawn_beside_the_table(tmp_path):
    files = reproduce(small(function=looking), tmp_path)
    assert files[3].name == "small-maps.png" and files[3].read_bytes().startswith(b"\x89PNG")
    assert "(small-maps.png)" in files[1].read_text("utf-8")
    records = read(files[0])
    assert [record["maps"]["saliency"][0] for record in records if record["row"] == "plain"] == [[1, 0], [2, 0]]
    assert not any("maps" in record for record in records if not record["final"])


def test_the_picture_is_of_the_mean_over_seeds(tmp_path):
    records = read(reproduce(small(function=looking), tmp_path)[0])
    once = draw_maps(small(), "default", 2, records)
    for record in records:
        if "maps" in record:
            record["maps"]["saliency"] = [
                [1.5 if value else 0.0 for value in row] for row in record["maps"]["saliency"]
            ]
    assert draw_maps(small(), "default", 2, records) == once
