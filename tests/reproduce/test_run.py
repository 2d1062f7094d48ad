import json

import pytest

from attribguard.errors import DataError, RangeError
from attribguard.reproduce import Watch, reproduce
from attribguard.reproduce.run import _share
from tests.reproduce.small import HEIR, PLAIN, TUNED, small, train


class Listener(Watch):
    def __init__(self):
        self.jobs = []

    def job(self, title, done, total):
        self.jobs.append((title, done, total))


def lines(folder):
    return [json.loads(line) for line in (folder / "small.jsonl").read_text("utf-8").splitlines()]


class Interrupted:
    """A training that the user interrupts the n-th time."""

    def __init__(self, after):
        self.left = after

    def __call__(self, run):
        if self.left == 0:
            raise KeyboardInterrupt
        self.left -= 1
        return train(run)


def test_a_run_writes_one_line_a_training_a_table_and_a_picture(tmp_path):
    files = reproduce(small(), tmp_path / "out")
    assert [file.name for file in files] == ["small.jsonl", "small.md", "small.png"]
    assert len(lines(tmp_path / "out")) == 10
    assert files[2].read_bytes().startswith(b"\x89PNG")
    rows = [[cell.strip() for cell in line.split("|")] for line in files[1].read_text("utf-8").splitlines()]
    # Weight 2, the seeds 0 and 1: 20 and 21.
    assert ["", "tuned", "**≠** 20.500 ± 0.707", "3.00 ± 0.50", "0.5", "2", "2", ""] in rows
    assert ["", "plain", "0.500 ± 0.707", "1.00", "", "", "2", ""] in rows


@pytest.mark.parametrize("after", range(0, 10, 3))
def test_interrupted_anywhere_and_started_again_it_trains_nothing_twice(tmp_path, after):
    with pytest.raises(KeyboardInterrupt):
        reproduce(small(function=Interrupted(after)), tmp_path)
    assert len(lines(tmp_path) if after else []) == after
    rest = Interrupted(10 - after)
    reproduce(small(function=rest), tmp_path)
    assert rest.left == 0 and len(lines(tmp_path)) == 10
    whole = reproduce(small(), tmp_path / "whole")
    assert (tmp_path / "small.md").read_text("utf-8").splitlines()[:12] == whole[1].read_text("utf-8").splitlines()[:12]


def test_a_finished_run_trains_nothing(tmp_path):
    reproduce(small(), tmp_path)
    before = (tmp_path / "small.jsonl").read_bytes()
    reproduce(small(function=Interrupted(0)), tmp_path)
    assert (tmp_path / "small.jsonl").read_bytes() == before


def test_more_seeds_add_to_what_is_there(tmp_path):
    reproduce(small(), tmp_path, seeds=1)
    more = Interrupted(3)
    reproduce(small(function=more), tmp_path, seeds=2)
    assert more.left == 0


def test_quick_runs_its_own_rows_without_a_search(tmp_path):
    reproduce(small(), tmp_path, size="quick")
    assert [(line["row"], line["final"], line["seed"]) for line in lines(tmp_path)] == [
        ("plain", True, 0),
        ("tuned", True, 0),
    ]


def test_another_size_in_the_same_file_is_not_mixed_in(tmp_path):
    reproduce(small(), tmp_path, size="quick")
    files = reproduce(small(), tmp_path)
    other = reproduce(small(), tmp_path / "other")
    tables = [file.read_text("utf-8").split("trainings")[0] for file in (files[1], other[1])]
    assert tables[0] == tables[1]


def test_progress_counts_every_training_once_and_ends_at_the_total(tmp_path):
    watch = Listener()
    reproduce(small(), tmp_path, watch=watch)
    assert [done for _, done, _ in watch.jobs] == [*range(11)]
    assert {total for *_, total in watch.jobs} == {10}
    assert watch.jobs[2][0] == "tuned, search" and watch.jobs[-1][0] == "done"


def test_two_processes_give_the_same_rows_as_one(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    reproduce(small(), one)
    reproduce(small(), two, jobs=2)
    keys = [
        sorted(json.dumps([r["row"], r["final"], r["seed"], r["settings"], r["metrics"]]) for r in lines(folder))
        for folder in (one, two)
    ]
    assert keys[0] == keys[1]


def test_under_torchrun_the_rows_are_shared_out_and_an_heir_goes_with_its_owner():
    recipe = small()
    shares = [_share(recipe, list(recipe.rows), {"RANK": str(rank), "WORLD_SIZE": "2"}) for rank in (0, 1)]
    assert shares == [[PLAIN], [TUNED, HEIR]]
    assert _share(recipe, list(recipe.rows), {}) == [PLAIN, TUNED, HEIR]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"seeds": 0}, RangeError, "seeds=0"),
        ({"jobs": 0}, RangeError, "jobs=0"),
        ({"size": "huge"}, RangeError, "size='huge'"),
        ({"device": "toaster"}, RangeError, "device='toaster'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_written(tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        reproduce(small(function=Interrupted(0)), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_a_table_that_needs_data_says_so(tmp_path):
    with pytest.raises(DataError, match="small without data; needed the folder of sums"):
        reproduce(small(needs_data="the folder of sums"), tmp_path)


def test_a_file_of_something_else_is_refused_and_kept(tmp_path):
    (tmp_path / "small.jsonl").write_text("a diary\n")
    with pytest.raises(DataError, match="line 1 of"):
        reproduce(small(function=Interrupted(0)), tmp_path)
    assert (tmp_path / "small.jsonl").read_text() == "a diary\n"


def test_a_table_on_a_users_own_data_is_another_table(tmp_path):
    recipe = small(takes_data="a folder of weights", with_data={"weight": 4.0})
    reproduce(recipe, tmp_path)
    drawn = (tmp_path / "small.jsonl").read_bytes()
    files = reproduce(recipe, tmp_path, data=tmp_path)
    assert [file.name for file in files] == ["small-files.jsonl", "small-files.md", "small-files.png"]
    assert (tmp_path / "small.jsonl").read_bytes() == drawn
    text = files[1].read_text("utf-8")
    assert "on a folder of weights" in text and "`attribguard reproduce small --data DIR`" in text


def test_data_that_nobody_asked_for_are_refused(tmp_path):
    with pytest.raises(DataError, match="data for small; needed none"):
        reproduce(small(), tmp_path / "out", data=tmp_path)


def test_killed_within_a_line_it_goes_on_with_that_training(tmp_path):
    reproduce(small(), tmp_path)
    rows = (tmp_path / "small.jsonl").read_bytes()
    (tmp_path / "small.jsonl").write_bytes(rows[:-30])
    once = Interrupted(1)
    reproduce(small(function=once), tmp_path)
    assert once.left == 0 and len(lines(tmp_path)) == 10
