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

**All four beside the published steps.** These cost 5.8 plain steps together, where 7.4 to 9.2 had been expected. In
convolutions alone a plain step is one pass forward and two back. ActDiff needs as much again for the corrupted images;
GradMask and RRR each need one pass back to the image, and that pass's own derivative, which is two more. So 4 plain
steps are the least for all four (3 where GradMask and RRR share a gradient; GradCAMRRR costs next to nothing), and 5.8
over these is 1.5 and 1.9. What a guard takes beyond, 0.4 and 0.2 of a plain step, is normalisation and activations,
which are passes over memory. Tried and not kept: a permutation per image in place of sorted keys (2 % of a step, but
other draws than a compiled graph's), a fused norm for ActDiff (2 to 3 %), features without copies (1 %, and wrong
under in-place ReLUs).

**Peak memory of all four.** One shared gradient meets the bar, exact gradients do not. At their peak of 505 MiB
autograd stands in the last layers of the corrupted pass. The graphs of the two passes hold 139 each (outputs of
convolutions and ReLUs, indices of the pooling), ActDiff's differences 57, what comes back through the ReLUs 60 for each
of the two inner gradients, gradients of weights 38, images and masks 12. A plain step has 172. In the course of
development it was 711: comparing the passes layer by layer, the corrupted one last, so that autograd leaves it first,
took away 77, and making BatchNorm's gradients again instead of keeping them, with a ReLU that sends no zeros back, 130.
Still open: the differences could be made again from what BatchNorm keeps of both passes, 57 less, at the cost of two
passes over memory a layer and of ties between the penalty and the double backward.

**Within the interval.** A guard with the criterion alone runs the same operators as the plain step, and class
activation maps with scores add a few small ones to the inference forward; what is over the bar there is noise.
"""


def performance_page(result: Mapping[str, Any]) -> str:
    """The page in Markdown, of one run's figures."""
    machine, records = result["machine"], result["workloads"]
    software = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    where = "" if machine["device"] == "cpu" else f", {machine['device']}"
    facts = (
        f"Measured on {result['date']} in {result['seconds'] / 60:.0f} minutes on {machine['processor']}, "
        f"{machine['cores']} cores{where}; {software}."
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
