"""What a workload is: contestants at one size, bars between them, sweeps over sizes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Measure = Literal["seconds", "bytes"]


class Bar(NamedTuple):
    """A ratio of two contestants that is to be at most or at least so much; none to be shown only."""

    of: str
    over: str
    most: float | None = None
    least: float | None = None


class Check(NamedTuple):
    """What should agree, and how far it is off."""

    claim: str
    difference: float
    tolerance: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.tolerance


class Part(NamedTuple):
    """A contestant too slow to be run whole: it runs a share of the work, and its time is scaled up in proportion."""

    run: Callable[[], Any]
    share: float

    def __call__(self) -> Any:
        return self.run()


class Absent(NamedTuple):
    """A contestant that cannot be run here, and why."""

    reason: str


Run = Callable[[], Any] | Part | Absent


@dataclass
class Case:
    """The contestants at one size, and what checks them; the checks run once, before anything is timed."""

    runs: dict[str, Run]
    checks: Callable[[], Sequence[Check]] = tuple


class Sweep(NamedTuple):
    """Other values of one size, and the exponent with which each contestant's cost should grow."""

    over: str
    values: Sequence[int]
    expected: Mapping[str, float]


@dataclass(frozen=True)
class Workload:
    """One row of the table, or a few that are measured together.

    Attributes:
        name: for the command line.
        title: for the table.
        make: from a device and the sizes to a case.
        size: what is measured.
        quick: sizes that are smaller, for a smoke test.
        bars: on the ratios.
        sweeps: for how the cost grows, from ``size`` but for the one that is swept.
        measure: ``"seconds"``, or ``"bytes"`` for the peak memory.
        devices: where it makes sense.
        text: what a reader has to know.
        rounds: in place of the usual number, for what takes long.
        sweep_size: sizes that are smaller in sweeps.
        per_image: the size by which images per second are shown too.
    """

    name: str
    title: str
    make: Callable[..., Case]
    size: Mapping[str, int]
    quick: Mapping[str, int]
    bars: Sequence[Bar]
    sweeps: Sequence[Sweep] = ()
    measure: Measure = "seconds"
    devices: Sequence[str] = ("cpu", "cuda")
    text: str = ""
    rounds: int | None = None
    sweep_size: Mapping[str, int] = field(default_factory=dict)
    per_image: str | None = None
