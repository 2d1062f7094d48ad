"""Makes docs/performance.md of the figures in benchmarks/results/performance.json: python -m benchmarks.page"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.table import check_line, contestant_cells, ratio_cells, sweep_cells

ROOT = Path(__file__).parent.parent
FIGURES, PAGE = ROOT / "benchmarks" / "results" / "performance.json", ROOT / "docs" / "performance.md"

HEAD = """# Performance

What the library costs, beside its peers, measured in one run: `python -m benchmarks --json FILE`. All networks have
random weights. Each contestant runs once a round, in turn (A B C A B C), on one thread; a ratio is the median of the
ratios round by round, so that a slow moment of the machine hits both sides. Its interval holds for the median at 95 %
whatever the distribution. A bar is **missed** where the whole interval lies on the wrong side of it; "within the
interval" is a median on the wrong side whose interval reaches the bar. A dash is a contestant that is not there.

The published steps are those of the papers, written in `benchmarks/baselines.py`: each penalty as its own code
computes it, on the same network. Peak memory is exact: all that torch's allocator handed out and took back, in
order, but not what oneDNN takes for itself while it convolves. Checks compare what should agree before anything is
timed.
"""

FINDINGS = """## What is missed, and where the rest goes

**All four beside the published steps.** Together these cost 5.5 plain steps here, where 7.4 to 9.2 had been
expected, so that twice as fast is out of reach for 4.4 and nearly reached by one shared gradient (3.2). What
remains are two forward passes and, for each input gradient, a backward pass through all layers and that pass's own
derivative. Tried and not kept: a permutation per image in place of sorted keys (2 % of a step, but other draws than
a compiled graph's), a fused norm for ActDiff (2 to 3 %), features without copies (1 %, and wrong under in-place
ReLUs).

**Peak memory of all four.** Profiled at a peak of 692 MiB, the graphs of the clean and the corrupted pass hold 250
(outputs of convolutions and ReLUs), ActDiff's differences 60, the two inner gradients 105 behind ReLUs and
BatchNorms, gradients that wait for the clean pass 85, those of the weights 43, and maps of zeros that torch's ReLU
sends back when it is differentiated again 60. Letting go of features once no penalty reads them is in; a BatchNorm
gradient that is made again instead of kept (15 MiB less), a ReLU that sends no zeros (37 MiB less) and running the
corrupted pass last (71 MiB more) were tried and not kept.

**Concept counts on maps of 28 x 28 beside one call on the stack.** The peer is scipy's labelling of all maps at
once with a structure that joins none, made as fast as we could; on small maps the sparse graph is 3.3 times as
fast, on these 1.7 times.
"""


def performance_page(result: Mapping[str, Any]) -> str:
    """The page in Markdown, of one run's figures."""
    machine, records = result["machine"], result["workloads"]
    software = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    where = "" if machine["device"] == "cpu" else f", {machine['device']}"
    facts = (
        f"Measured on {result['date']} in {result['seconds'] / 60:.0f} minutes on {machine['processor']}, "
        f"{machine['cores']} cores{where}; {software}.{result.get('remark', '')}"
    )
    lines = [[record["title"], *ratio_cells(ratio)] for record in records for ratio in record["ratios"]]
    judged = [ratio["verdict"] for record in records for ratio in record["ratios"] if ratio["verdict"]]
    checks = [check["holds"] for record in records for check in record["checks"]]
    counts = (
        f"{judged.count('met')} of {len(judged)} bars are met, {judged.count('open')} within the interval, "
        f"{judged.count('missed')} missed; {sum(checks)} of {len(checks)} checks hold."
    )
    parts = [
        HEAD, facts, counts,
        _table(["workload", "ratio", "measured", "95 % interval", "bar", ""], lines), FINDINGS, *map(_section, records),
    ]  # fmt: skip
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _section(record: Mapping[str, Any]) -> str:
    measure, images = record["measure"], record["images"]
    size = ", ".join(f"{name} {value}" for name, value in record["size"].items())
    rounds = f"; {record['rounds']} rounds" if measure == "seconds" else ""
    contestants = [contestant_cells(contestant, measure, images) for contestant in record["contestants"]]
    parts = [
        f"## {record['title']}",
        f"`--only {record['name']}`: {size}{rounds}. {record['text']}",
        _table(["contestant", "median", "95 % interval"], contestants),
    ]
    if lines := [cells for sweep in record["sweeps"] for cells in sweep_cells(sweep, measure)]:
        parts.append(_table(["growth of", "with", "values", "costs", "exponent", "expected"], lines))
    parts += ["\n".join(f"- {check_line(check)}" for check in record["checks"])]
    return "\n\n".join(part.strip() for part in parts if part.strip())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def main() -> None:
    PAGE.write_text(performance_page(json.loads(FIGURES.read_text("utf-8"))), "utf-8")


if __name__ == "__main__":
    main()
