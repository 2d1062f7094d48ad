"""The peak memory of a guarded step."""

from benchmarks.guarded import ALL_FOUR, SHARED, guarded_run, plain_run, published_run
from benchmarks.networks import random_batch, resnet18
from benchmarks.workload import Bar, Case, Sweep, Workload


def make(device, batch, side, width):
    model = resnet18(width=width).to(device)
    data = random_batch(batch, side, device)
    return Case(
        {
            "plain step": plain_run(model, data),
            "guard, GradCAMRRR": guarded_run(model, data, ["gradcamrrr"]),
            "guard, all four": guarded_run(model, data, ALL_FOUR),
            "guard, all four, shared gradient": guarded_run(model, data, ALL_FOUR, **SHARED),
            "published steps": published_run(model, data, ALL_FOUR),
        }
    )


PLACE = 60
WORKLOADS = [
    Workload(
        "step_memory",
        "Peak memory of a step, ResNet-18",
        make,
        size={"batch": 32, "side": 100, "width": 64},
        quick={"batch": 4, "side": 32, "width": 8},
        bars=[
            Bar("guard, all four", "plain step", most=2.7),
            Bar("guard, all four, shared gradient", "plain step", most=2.7),
            Bar("guard, GradCAMRRR", "plain step", most=1.05),
            Bar("published steps", "plain step"),
        ],
        sweeps=[Sweep("batch", (8, 16, 32), {"plain step": 1.0, "guard, all four": 1.0})],
        measure="bytes",
        text="Everything that torch's allocator hands out during a step, gradients included, weights and images not.",
    )
]
