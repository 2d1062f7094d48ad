from pathlib import Path

import pytest

from attribguard.reproduce import RECIPES, reproduce, results_page, results_pictures
from attribguard.reproduce.records import read
from tests.reproduce.small import small

ROOT = Path(__file__).parents[2]
ROWS = ROOT / "benchmarks" / "results"


def test_the_page_of_results_is_what_the_rows_give():
    assert (ROOT / "docs" / "results.md").read_text("utf-8") == results_page(ROWS, RECIPES)


def test_every_file_of_rows_is_a_table_of_ours_with_its_picture():
    names = {path.stem for path in ROWS.glob("*.jsonl")}
    assert names <= set(RECIPES)
    pictures = {path.name for path in (ROOT / "docs" / "images").glob("results-*.png")}
    assert pictures == set(results_pictures(ROWS, RECIPES)) >= {f"results-{name}.png" for name in names}


@pytest.mark.parametrize("path", sorted(ROWS.glob("*.jsonl")), ids=lambda path: path.stem)
def test_no_training_stands_in_the_rows_twice(path):
    records = read(path)
    keys = {str([record["row"], record["final"], record["seed"], record["settings"]]) for record in records}
    assert len(keys) == len(records)


def test_a_changed_figure_changes_the_page(tmp_path):
    recipe = small()
    files = reproduce(recipe, tmp_path)
    page = results_page(tmp_path, {"small": recipe})
    assert "20.500" in page and page.count("\n## ") == 1
    files[0].write_text(files[0].read_text("utf-8").replace('"test": 21.0', '"test": 22.0'), "utf-8")
    assert "21.000" in results_page(tmp_path, {"small": recipe})


def test_tables_without_rows_are_listed_as_not_run(tmp_path):
    page = results_page(tmp_path, {"small": small()})
    assert "`small` (A small table)" in page and "| row |" not in page
    assert results_pictures(tmp_path, {"small": small()}) == {}
