"""Every workload runs at its small size, its contestants agree, and a wrong one is noticed."""

import json

import pytest
import torch

from benchmarks.__main__ import main
from benchmarks.run import missed, run_sweep, run_workload
from benchmarks.workload import Absent, Bar, Case, Check, Part, Sweep, Workload
from benchmarks.workloads import all_workloads

CPU = torch.device("cpu")
ON_CPU = {name: workload for name, workload in all_workloads().items() if "cpu" in workload.devices}


@pytest.mark.parametrize("name", ON_CPU)
def test_contestants_run_and_agree(name):
    torch.manual_seed(0)
    case = ON_CPU[name].make(CPU, **ON_CPU[name].quick)
    for check in case.checks():
        assert check.holds, check
    for run in case.runs.values():
        if not isinstance(run, Absent):
            run()


@pytest.mark.parametrize("name", all_workloads())
def test_bars_and_sweeps_name_contestants_and_sizes(name):
    workload = all_workloads()[name]
    assert set(workload.quick) == set(workload.size)
    assert {sweep.over for sweep in workload.sweeps} | set(workload.sweep_size) <= set(workload.size)
    if "cpu" in workload.devices:
        runs = set(workload.make(CPU, **workload.quick).runs)
        named = {name for bar in workload.bars for name in (bar.of, bar.over)}
        assert named | {name for sweep in workload.sweeps for name in sweep.expected} <= runs


def sleepers(device, n):
    """Contestants whose cost is known: they hold n, 3 n and, of a tenth of the work, n numbers."""
    return Case(
        {
            "one": lambda: torch.empty(1000 * n),
            "three": lambda: torch.empty(3000 * n),
            "gone": Absent("not installed"),
        },
        lambda: [Check("far off", 2.0, 1.0), Check("not a number", float("nan"), 1.0), Check("near", 0.5, 1.0)],
    )


BYTES = Workload(
    "bytes",
    "Known sizes",
    sleepers,
    {"n": 10},
    {"n": 1},
    [Bar("three", "one", most=2), Bar("three", "one", least=2), Bar("gone", "one", most=1)],
    [Sweep("n", (1, 2, 4), {"three": 1.0})],
    measure="bytes",
)


def test_a_record_has_costs_ratios_verdicts_and_dashes():
    record = run_workload(BYTES, CPU, quick=False)
    assert [c.get("median") for c in record["contestants"]] == [40_000, 120_000, None]
    assert record["contestants"][2]["absent"] == "not installed"
    assert [(r["median"], r["verdict"]) for r in record["ratios"]] == [(3, "missed"), (3, "met"), (None, "")]
    assert [check["holds"] for check in record["checks"]] == [False, False, True]
    assert missed([record]) == ["bytes: three / one", "bytes: far off", "bytes: not a number"]
    assert run_sweep(BYTES, BYTES.sweeps[0], CPU)["lines"][0]["exponent"] == pytest.approx(1)


def test_the_time_of_a_part_is_scaled_to_the_whole():
    work = lambda: torch.ones(400, 400) @ torch.ones(400, 400)  # noqa: E731
    parts = Workload(
        "parts", "", lambda device, n: Case({"whole": work, "part": Part(work, 1e-6)}), {"n": 1}, {"n": 1}, []
    )
    whole, part = run_workload(parts, CPU, quick=True)["contestants"]
    assert part["median"] > 1000 * whole["median"] and part["share"] == 1e-6


def test_the_command_writes_what_it_prints(tmp_path, capsys):
    file = tmp_path / "new" / "figures.json"
    threads = torch.get_num_threads()
    assert main(["--quick", "--only", "criterion_only", "--json", str(file)]) == 0
    torch.set_num_threads(threads)
    result = json.loads(file.read_text("utf-8"))
    assert result["quick"] and [record["name"] for record in result["workloads"]] == ["criterion_only"]
    assert {"torch", "attribguard", "captum"} <= set(result["versions"]) and result["machine"]["device"] == "cpu"
    assert "A guard with the criterion alone" in capsys.readouterr().out


def test_pixels_that_are_laid_out_late_take_a_quarter_less_memory_without_a_graph():
    record = run_workload(ON_CPU["swin_memory"], CPU, quick=True)
    assert record["ratios"][0]["most"] == 0.75 and record["ratios"][0]["verdict"] == "met"
