"""GradMask and RRR, which differentiate the input gradient again: each alone, both, both with one gradient."""

import copy

import torch
from torch import nn

from benchmarks.guarded import SHARED, gradients_agree, guarded_run, plain_run, published_run, unknown_options
from benchmarks.networks import random_batch, resnet18
from benchmarks.workload import Bar, Case, Sweep, Workload

BOTH = ("gradmask", "rrr")
NAMES = {"gradmask": "GradMask", "rrr": "RRR"}


def alone(name, norm):
    def make(device, batch, side, width):
        model = resnet18(norm, width).to(device)
        data = random_batch(batch, side, device)
        runs = {
            "plain step": plain_run(model, data),
            f"guard, {NAMES[name]}": guarded_run(model, data, [name]),
            "published step": published_run(model, data, [name]),
        }

        def checks():
            claim = "gradients equal plain autograd's"
            return [
                gradients_agree(model, data, [name]),
                gradients_agree(scaled(model, 1.0), data, [name], claim=f"{claim}, random scales"),
                gradients_agree(scaled(model, 0.0), data, [name], claim=f"{claim}, scales of zero"),
            ]

        return Case(runs, checks)

    return make


def scaled(model, by):
    """Random BatchNorm scales, those that end a residual branch times ``by``."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(-1.0, 2.0).mul_(by if name.endswith("bn2") else 1.0)
    return model


def both(norm):
    def make(device, batch, side, width):
        model = resnet18(norm, width).to(device)
        data = random_batch(batch, side, device)
        runs = {
            "plain step": plain_run(model, data),
            "guard, GradMask + RRR": guarded_run(model, data, BOTH),
            "guard, one shared gradient": guarded_run(model, data, BOTH, **SHARED),
            "published steps": published_run(model, data, BOTH),
        }

        def checks():
            found = [gradients_agree(model, data, BOTH)]
            if norm == "none" and not unknown_options(SHARED):  # elsewhere it is another definition
                claim = "gradients of the shared form equal plain autograd's"
                found.append(gradients_agree(model, data, BOTH, claim=claim, **SHARED))
            return found

        return Case(runs, checks)

    return make


PLACE = 30
SIZE, QUICK = {"batch": 32, "side": 100, "width": 64}, {"batch": 6, "side": 48, "width": 8}
WORKLOADS = [
    *(
        Workload(
            name,
            f"{shown}, ResNet-18, BatchNorm in train mode",
            alone(name, "batch"),
            SIZE,
            QUICK,
            bars=[
                Bar(f"guard, {shown}", "plain step", most=2.3),
                Bar("published step", "plain step"),
            ],
            sweeps=[Sweep("batch", (8, 16, 32), {f"guard, {shown}": 1.0})],
        )
        for name, shown in NAMES.items()
    ),
    Workload(
        "gradmask_rrr",
        "GradMask + RRR, two classes, ResNet-18",
        both("batch"),
        SIZE,
        QUICK,
        bars=[
            Bar("guard, one shared gradient", "plain step", most=2.4),
            Bar("guard, GradMask + RRR", "plain step"),
            Bar("published steps", "plain step"),
        ],
        sweeps=[Sweep("batch", (8, 16, 32), {"guard, GradMask + RRR": 1.0})],
    ),
    Workload(
        "norm_free",
        "GradMask + RRR, two classes, ResNet-18 without norm",
        both("none"),
        SIZE,
        QUICK,
        bars=[
            Bar("guard, GradMask + RRR", "plain step"),
            Bar("guard, one shared gradient", "plain step"),
            Bar("published steps", "plain step"),
        ],
        sweeps=[Sweep("batch", (8, 16, 32), {"guard, GradMask + RRR": 1.0})],
        text="A fused step could reach 1.7 times the plain one here.",
    ),
]
