"""What holds for every table, whatever it trains."""

import json

import pytest

from attribguard.reproduce import RECIPES

SIZED = [(recipe, size) for recipe in RECIPES.values() for size in recipe.sizes]
both = pytest.mark.parametrize(("recipe", "size"), SIZED, ids=lambda value: getattr(value, "name", value))
every = pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)


@every
def test_a_table_has_its_three_sizes_and_names_that_differ(recipe):
    assert set(recipe.sizes) == {"default", "quick", "full"}
    assert len({row.name for row in recipe.rows}) == len(recipe.rows)


@every
def test_the_default_run_has_three_seeds_and_the_quick_one_a_single_one(recipe):
    assert recipe.sizes["default"].seeds == 3 and recipe.sizes["quick"].seeds == 1
    assert recipe.sizes["default"].rows is None


@both
def test_rows_of_a_size_are_rows_of_the_table(recipe, size):
    names = recipe.sizes[size].rows
    assert names is None or [row.name for row in recipe.rows_of(size)] == list(names)


@both
def test_settings_are_plain_data(recipe, size):
    for row in recipe.rows:
        settings = {**recipe.sizes[size].settings, **row.settings}
        assert json.loads(json.dumps(settings)) == settings


@both
def test_every_setting_that_is_searched_is_one_of_the_training(recipe, size):
    plan = recipe.sizes[size]
    for row in recipe.rows:
        assert {name for name in row.searched if name in plan.search} <= {*plan.settings, *row.settings}


@every
def test_all_rows_search_the_same_values(recipe):
    """A row searches every setting that it has, or takes over a choice: no method gets a larger search than another."""
    search = recipe.sizes["default"].search
    for row in recipe.rows:
        assert set(row.searched) <= set(search)
        if row.chosen_by:
            assert recipe.row(row.chosen_by).searched and not recipe.row(row.chosen_by).chosen_by


@every
def test_papers_figures_are_those_of_metrics_that_the_table_shows(recipe):
    assert {metric for row in recipe.rows for metric in row.paper} <= set(recipe.metrics)
    assert recipe.compared in recipe.metrics


@every
def test_comparisons_are_of_rows_and_metrics_of_the_table(recipe):
    names = {row.name for row in recipe.rows}
    assert {name for pair in recipe.comparisons for name in pair} <= names
    assert all(row != against for row, against in recipe.comparisons)
    assert set(recipe.differences) <= set(recipe.metrics) and bool(recipe.differences) == bool(recipe.comparisons)
    assert {metric for _, metrics in recipe.parts for metric in metrics} <= set(recipe.metrics)
