import pytest

from attribguard.reproduce import Run
from attribguard.reproduce.jobs import SEARCH_SEED, Job, choose, count_jobs, finals, index, known_jobs
from tests.reproduce.small import HEIR, PLAIN, TUNED, small, train


def done_by(recipe, row, *, breaks=None):
    """Train whatever the row's search asks for until it asks for nothing; the records and how many rounds it took."""
    size, records, rounds = recipe.sizes["default"], [], 0
    while choose(recipe, size, row, index(records))[1] is None:
        rounds += 1
        tried, _ = choose(recipe, size, row, index(records))
        for job in [job for job in tried if job.key not in index(records)]:
            outcome = train(Run(dict(job.settings) | {"breaks": breaks}, job.seed, job.final, None, None))
            metrics = {name: None if value != value else value for name, value in outcome.metrics.items()}
            records.append(
                {"row": job.row, "final": job.final, "seed": job.seed, "settings": job.settings, "metrics": metrics}
            )
    return records, rounds


def test_a_row_without_a_search_goes_straight_to_its_seeds():
    recipe = small()
    tried, settings = choose(recipe, recipe.sizes["default"], PLAIN, {})
    assert tried == [] and settings == {"weight": 0.0, "lr": 1.0}
    assert [job.seed for job in finals(recipe, recipe.sizes["default"], PLAIN, 3, {})] == [0, 1, 2]


def test_the_search_takes_the_best_value_of_one_setting_then_of_the_next():
    recipe = small()
    records, rounds = done_by(recipe, TUNED)
    assert rounds == 2
    assert [(r["settings"]["weight"], r["settings"]["lr"]) for r in records] == [(1, 1), (2, 1), (3, 1), (2, 0.5)]
    assert {r["seed"] for r in records} == {SEARCH_SEED}
    _, settings = choose(recipe, recipe.sizes["default"], TUNED, index(records))
    assert settings == {"weight": 2.0, "lr": 0.5, "method": "a"}


def test_no_training_counts_while_the_search_goes_on():
    recipe = small()
    assert finals(recipe, recipe.sizes["default"], TUNED, 2, {}) == []


def test_of_equal_scores_the_value_named_first_wins():
    recipe = small()
    records, _ = done_by(recipe, TUNED)
    for record in records:
        record["metrics"]["valid"] = 0.0
    first = [r for r in records if r["settings"]["lr"] == 1.0]
    extra = {**first[0], "settings": {**first[0]["settings"], "lr": 0.5}}
    _, settings = choose(recipe, recipe.sizes["default"], TUNED, index([*first, extra]))
    assert (settings["weight"], settings["lr"]) == (1.0, 1.0)


def test_a_training_that_broke_down_loses_against_all_others():
    recipe = small()
    records, _ = done_by(recipe, TUNED, breaks=2.0)
    _, settings = choose(recipe, recipe.sizes["default"], TUNED, index(records))
    assert settings["weight"] == 1.0


def test_a_row_takes_over_the_choice_of_another_and_keeps_its_own_settings():
    recipe = small()
    records, _ = done_by(recipe, TUNED)
    tried, settings = choose(recipe, recipe.sizes["default"], HEIR, index(records))
    assert settings == {"weight": 2.0, "lr": 0.5, "method": "b"}
    assert {job.row for job in tried} == {"tuned"}


def test_known_jobs_names_no_training_twice_and_ends_with_as_many_as_were_counted():
    recipe = small()
    size = recipe.sizes["default"]
    records, _ = done_by(recipe, TUNED)
    known = known_jobs(recipe, size, recipe.rows, 2, index(records))
    assert len({job.key for job in known}) == len(known) == count_jobs(recipe, size, recipe.rows, 2) == 4 + 3 * 2


@pytest.mark.parametrize("change", [{"row": "b"}, {"final": False}, {"seed": 1}, {"settings": {"weight": 2.0}}])
def test_a_key_changes_with_anything_that_a_figure_depends_on(change):
    job = {"row": "a", "final": True, "seed": 0, "settings": {"weight": 1.0}}
    assert Job(**job).key != Job(**{**job, **change}).key


def test_a_key_does_not_depend_on_the_order_of_the_settings():
    assert Job("a", True, 0, {"x": 1, "y": 2}).key == Job("a", True, 0, {"y": 2, "x": 1}).key
