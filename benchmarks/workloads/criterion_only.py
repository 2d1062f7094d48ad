"""What a guard costs that has nothing to guard."""

from benchmarks.guarded import gradients_agree, guarded_run, plain_run
from benchmarks.networks import random_batch, resnet18
from benchmarks.workload import Bar, Case, Sweep, Workload


def make(device, batch, side, width):
    model = resnet18(width=width).to(device)
    data = random_batch(batch, side, device)
    runs = {"plain step": plain_run(model, data), "guard, criterion only": guarded_run(model, data, ())}
    return Case(runs, lambda: [gradients_agree(model, data, ())])


PLACE = 10
WORKLOADS = [
    Workload(
        "criterion_only",
        "A guard with the criterion alone, ResNet-18",
        make,
        size={"batch": 32, "side": 100, "width": 64},
        quick={"batch": 4, "side": 32, "width": 8},
        bars=[Bar("guard, criterion only", "plain step", most=1.03)],
        sweeps=[Sweep("batch", (8, 16, 32), {"plain step": 1.0, "guard, criterion only": 1.0})],
    )
]
