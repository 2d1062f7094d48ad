"""A table whose trainings are sums, so that every figure of it can be worked out by hand."""

from attribguard.reproduce import Outcome, Recipe, Row, Size


def train(run):
    """The test figure is the seed plus ten times the weight; validation prefers the weight 2, then the rate 0.5."""
    s = run.settings
    run.on_step(1, 1)
    valid = -abs(s["weight"] - 2) - abs(s["lr"] - 0.5)
    metrics = {"valid": float("nan") if s.get("breaks") == s["weight"] else valid}
    if run.final:
        metrics["test"] = run.seed + 10 * s["weight"]
    return Outcome(metrics, {"valid": [0.0, valid]})


PLAIN = Row("plain", {"weight": 0.0}, {"test": (1.0, None)})
TUNED = Row("tuned", {"method": "a"}, {"test": (3.0, 0.5)}, ("weight", "lr"))
HEIR = Row("heir", {"method": "b"}, {}, chosen_by="tuned")


def small(rows=(PLAIN, TUNED, HEIR), *, function=train, seeds=2, **options):
    search = {"weight": (1.0, 2.0, 3.0), "lr": (1.0, 0.5)}
    return Recipe(
        name="small",
        title="A small table",
        paper="Nobody, Table 0",
        text="Sums.",
        metrics={"test": "test sum"},
        compared="test",
        tolerance=0.6,
        score="valid",
        rows=tuple(rows),
        sizes={
            "default": Size({"weight": 1.0, "lr": 1.0}, seeds, search),
            "quick": Size({"weight": 1.0, "lr": 1.0}, 1, rows=("plain", "tuned")),
        },
        train=function,
        **options,
    )
