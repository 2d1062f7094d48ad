"""ActDiff, GradMask, RRR and GradCAMRRR in one step."""

from benchmarks.guarded import ALL_FOUR, SHARED, gradients_agree, guarded_run, plain_run, published_run
from benchmarks.networks import random_batch, resnet18
from benchmarks.workload import Bar, Case, Sweep, Workload

OURS, SHARING, PUBLISHED = "guard, all four", "guard, all four, shared gradient", "published steps"


def make(device, batch, side, width):
    model = resnet18(width=width).to(device)
    data = random_batch(batch, side, device)
    runs = {
        "plain step": plain_run(model, data),
        OURS: guarded_run(model, data, ALL_FOUR),
        SHARING: guarded_run(model, data, ALL_FOUR, **SHARED),
        PUBLISHED: published_run(model, data, ALL_FOUR),
    }
    return Case(runs, lambda: [gradients_agree(model, data, ALL_FOUR)])


PLACE = 50
WORKLOADS = [
    Workload(
        "all_four",
        "All four penalties, ResNet-18",
        make,
        size={"batch": 32, "side": 100, "width": 64},
        quick={"batch": 6, "side": 48, "width": 8},
        bars=[
            Bar(OURS, "plain step", most=4.7),
            Bar(SHARING, "plain step", most=3.5),
            Bar(PUBLISHED, OURS, least=2.0),
            Bar(PUBLISHED, SHARING, least=2.0),
            Bar(PUBLISHED, "plain step"),
        ],
        sweeps=[Sweep("batch", (8, 16, 32), {OURS: 1.0, PUBLISHED: 1.0})],
    )
]
