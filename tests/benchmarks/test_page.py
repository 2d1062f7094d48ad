"""docs/performance.md is what the figures of the last run give."""

import copy
import json

import pytest

from benchmarks.page import FIGURES, PAGE, performance_page
from benchmarks.workloads import all_workloads


@pytest.fixture
def result():
    return json.loads(FIGURES.read_text("utf-8"))


def test_the_page_of_performance_is_what_the_figures_give(result):
    assert PAGE.read_text("utf-8") == performance_page(result)


def test_the_figures_are_of_a_whole_run_of_workloads_that_are_there(result):
    workloads = all_workloads()
    assert not result["quick"]
    for record in result["workloads"]:
        workload = workloads[record["name"]]
        assert record["size"] == dict(workload.size) and record["title"] == workload.title
        bars = [(ratio["of"], ratio["over"], ratio["most"], ratio["least"]) for ratio in record["ratios"]]
        assert bars == [tuple(bar) for bar in workload.bars]


def test_a_changed_figure_changes_the_page(result):
    other = copy.deepcopy(result)
    ratio = next(ratio for record in other["workloads"] for ratio in record["ratios"] if ratio["median"])
    ratio |= {"median": 77.25, "verdict": "missed", "low": 70.5}
    page = performance_page(other)
    assert "77.2" in page and "70.5" in page and "**missed**" in page and page != performance_page(result)
