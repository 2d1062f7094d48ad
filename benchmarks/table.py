"""Figures in words, for the terminal and for the page."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

MARKS = {"met": "met", "missed": "**missed**", "open": "within the interval", "": ""}


def cost(value: float, measure: str) -> str:
    """Seconds with three digits, or MB.

    Example:
        >>> cost(0.01234, "seconds"), cost(61.7, "seconds"), cost(2.5e6, "bytes")
        ('12.3 ms', '61.7 s', '2.5 MB')
    """
    if measure == "bytes":
        return f"{value / 1e6:.3g} MB" if value < 1e9 else f"{value / 1e6:.0f} MB"
    factor, unit = (1.0, "s") if value >= 1 else (1e3, "ms") if value >= 1e-3 else (1e6, "µs")
    return f"{_digits(value * factor)} {unit}"


def times(value: float) -> str:
    """A ratio with three digits, two of them behind the point at most."""
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def bar(ratio: Mapping[str, Any]) -> str:
    """What is asked of a ratio."""
    if ratio["most"] is not None:
        return f"≤ {ratio['most']:g}"
    return "" if ratio["least"] is None else f"≥ {ratio['least']:g}"


def ratio_cells(ratio: Mapping[str, Any]) -> list[str]:
    """What over what, the ratio, its interval, the bar and the verdict."""
    name = f"{ratio['of']} / {ratio['over']}"
    if ratio["median"] is None:
        return [name, "–", "–", bar(ratio), ""]
    interval = "–" if ratio["low"] is None else f"{times(ratio['low'])} to {times(ratio['high'])}"
    return [name, times(ratio["median"]), interval, bar(ratio), MARKS[ratio["verdict"]]]


def contestant_cells(contestant: Mapping[str, Any], measure: str, images: int | None = None) -> list[str]:
    """Name, median, and the spread of its rounds; images per second where their number is given."""
    if "absent" in contestant:
        return [contestant["name"], "–", contestant["absent"]]
    low, high = (cost(value, measure) for value in contestant["spread"])
    name = contestant["name"]
    if contestant["share"] != 1:
        name += f" (from {contestant['share']:.2%} of the work)"
    if images is not None:
        name += f" ({images / contestant['median']:.0f} images/s)"
    return [name, cost(contestant["median"], measure), f"{low} to {high}" if low != high else low]


def sweep_cells(sweep: Mapping[str, Any], measure: str) -> list[list[str]]:
    """For each contestant: the size, its values, the costs, the fitted exponent and the expected one."""
    values = ", ".join(map(str, sweep["values"]))
    return [
        [
            line["name"], sweep["over"], values, ", ".join(cost(value, measure) for value in line["costs"]),
            f"{line['exponent']:.2f} ± {line['error']:.2f}", f"{line['expected']:g}",
        ]
        for line in sweep["lines"]
    ]  # fmt: skip


def check_line(check: Mapping[str, Any]) -> str:
    """A claim, how far it is off and how far it may be."""
    mark = "holds" if check["holds"] else "FAILS"
    return f"{check['claim']}: {check['difference']:.1e} (≤ {check['tolerance']:.0e}), {mark}"


def print_record(console: Console, record: Mapping[str, Any]) -> None:
    """One workload's tables."""
    measure = record["measure"]
    size = ", ".join(f"{key} {value}" for key, value in record["size"].items())
    caption = f"{size}; {record['rounds']} rounds; {record['seconds']:.0f} s in all"
    costs = Table("", "median", "95 % interval", title=f"{record['name']}: {record['title']}", caption=caption)
    for contestant in record["contestants"]:
        costs.add_row(*contestant_cells(contestant, measure, record["images"]))
    console.print(costs)
    ratios = Table("ratio", "median", "95 % interval", "bar", "")
    for ratio in record["ratios"]:
        ratios.add_row(*(cell.strip("*") for cell in ratio_cells(ratio)))
    console.print(ratios)
    if record["sweeps"]:
        sweeps = Table("growth of", "with", "values", "costs", "exponent", "expected")
        for sweep in record["sweeps"]:
            for cells in sweep_cells(sweep, measure):
                sweeps.add_row(*cells)
        console.print(sweeps)
    for check in record["checks"]:
        console.print(f"  {check_line(check)}", style="" if check["holds"] else "bold red")


def _digits(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"
