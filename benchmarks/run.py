"""Run workloads, and keep what came of them as plain numbers."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from benchmarks.measure import interleaved_seconds, peak_bytes
from benchmarks.ratios import fitted_exponent, median_interval, paired_ratio, verdict
from benchmarks.workload import Absent, Part, Run, Sweep, Workload

ROUNDS, SWEEP_ROUNDS = 9, 3


def run_workload(workload: Workload, device: torch.device, *, quick: bool, rounds: int | None = None) -> dict[str, Any]:
    """Measure one workload.

    Args:
        workload: which.
        device: where.
        quick: its small sizes, two rounds, no sweep.
        rounds: how many, in place of the workload's own.

    Returns:
        Sizes, contestants, ratios with their bars, checks, sweeps and seconds, ready for JSON.
    """
    began = time.perf_counter()
    size = dict(workload.quick if quick else workload.size)
    rounds = 2 if quick else rounds or workload.rounds or ROUNDS
    torch.manual_seed(0)
    case = workload.make(device, **size)
    checks = [
        {**check._asdict(), "difference": float(check.difference), "holds": bool(check.holds)}
        for check in case.checks()
    ]
    costs = measure(workload, case.runs, rounds, device)
    return {
        "name": workload.name,
        "title": workload.title,
        "text": workload.text,
        "measure": workload.measure,
        "images": size[workload.per_image] if workload.per_image else None,
        "size": size,
        "rounds": len(next(iter(costs.values()))),
        "contestants": [_contestant(name, run, costs.get(name)) for name, run in case.runs.items()],
        "ratios": [_ratio(bar, costs) for bar in workload.bars if {bar.of, bar.over} <= set(case.runs)],
        "checks": checks,
        "sweeps": [] if quick else [run_sweep(workload, sweep, device) for sweep in workload.sweeps],
        "seconds": round(time.perf_counter() - began, 1),
    }


def measure(workload: Workload, runs: Mapping[str, Run], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """The cost of each contestant that is there: one number a round, or one of what is the same in every round."""
    present = {name: run for name, run in runs.items() if not isinstance(run, Absent)}
    if workload.measure == "bytes":
        return {name: [float(peak_bytes(run, device))] for name, run in present.items()}
    seconds = interleaved_seconds(present, rounds, device)
    return {name: [s / _share(present[name]) for s in some] for name, some in seconds.items()}


def run_sweep(workload: Workload, sweep: Sweep, device: torch.device) -> dict[str, Any]:
    """How the cost of some contestants grows with one size, measured in turn over all its values."""
    runs: dict[Any, Callable] = {}
    for value in sweep.values:
        torch.manual_seed(0)
        case = workload.make(device, **{**workload.size, **workload.sweep_size, sweep.over: value})
        runs |= {(name, value): case.runs[name] for name in sweep.expected}
    costs = measure(workload, runs, SWEEP_ROUNDS, device)
    lines = []
    for name, expected in sweep.expected.items():
        some = [statistics.median(costs[name, value]) for value in sweep.values]
        exponent = fitted_exponent(sweep.values, some)
        lines.append(
            {"name": name, "costs": some, "exponent": exponent.value, "error": exponent.error, "expected": expected}
        )
    return {"over": sweep.over, "values": list(sweep.values), "lines": lines}


def missed(records: Iterable[Mapping[str, Any]]) -> list[str]:
    """The ratios whose whole interval is on the wrong side of their bar, and the checks that fail, in words."""
    found = []
    for record in records:
        found += [f"{record['name']}: {r['of']} / {r['over']}" for r in record["ratios"] if r["verdict"] == "missed"]
        found += [f"{record['name']}: {check['claim']}" for check in record["checks"] if not check["holds"]]
    return found


def _share(run: Run) -> float:
    return run.share if isinstance(run, Part) else 1.0


def _contestant(name: str, run: Run, costs: list[float] | None) -> dict[str, Any]:
    if costs is None:
        return {"name": name, "absent": run.reason if isinstance(run, Absent) else ""}
    low, high = median_interval(costs) if len(costs) > 1 else (costs[0], costs[0])
    spread = [low, high] if math.isfinite(low) else [min(costs), max(costs)]
    return {"name": name, "median": statistics.median(costs), "spread": spread, "share": _share(run)}


def _ratio(bar: Any, costs: Mapping[str, list[float]]) -> dict[str, Any]:
    record = {**bar._asdict(), "median": None, "low": None, "high": None, "verdict": ""}
    if bar.of in costs and bar.over in costs:
        ratio = paired_ratio(costs[bar.of], costs[bar.over])
        if len(costs[bar.of]) == 1:  # bytes, which are the same whenever they are counted
            ratio = ratio._replace(low=ratio.median, high=ratio.median)
        record["verdict"] = verdict(ratio, bar.most, bar.least)
        finite = {key: value if math.isfinite(value) else None for key, value in ratio._asdict().items()}
        record |= finite
    return record
