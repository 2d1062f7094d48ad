"""Images per second of guarded bf16 steps on a GPU, compiled where the penalty admits it."""

import copy

import timm
import torch
import torch.nn.functional as F

import attribguard as ag
from attribguard.models import mtl_swin_unet
from benchmarks.networks import random_batch
from benchmarks.workload import Bar, Case, Workload

PLAIN, COMPILED = "plain step", "plain step, compiled"
# Names to penalties; those that differentiate an input gradient again cannot be compiled.
FIRST_ORDER = {"ActDiff": lambda: ag.ActDiff(1.0), "GradCAMRRR": lambda: ag.GradCAMRRR(1.0)}
SECOND_ORDER = {"GradMask": lambda: ag.GradMask(1.0)}


def resnet50(device, images, side):
    model = timm.create_model("resnet50", num_classes=2).to(device).to(memory_format=torch.channels_last)
    return steps(device, model, random_batch(images, side, device))


def swin(device, images, side):
    guard = mtl_swin_unet(tasks=("cls",), img_size=side)
    return steps(device, guard.unwrap().to(device), random_batch(images, side, device))


def steps(device, model, data):
    runs = {PLAIN: step(device, copy.deepcopy(model), data), COMPILED: step(device, copy.deepcopy(model), data, True)}
    for name, penalty in {**FIRST_ORDER, **SECOND_ORDER}.items():
        runs[f"guard, {name}"] = step(device, ag.wrap(copy.deepcopy(model), penalties=[penalty()]), data)
    for name, penalty in FIRST_ORDER.items():
        guard = ag.wrap(copy.deepcopy(model), penalties=[penalty()])
        with torch.autocast(device.type, torch.bfloat16):
            guard(data.x, data.y, mask=data.mask)  # finds the layers, and what stands behind them
        runs[f"guard, {name}, compiled"] = step(device, guard, data, True)
    return Case(runs)


def step(device, network, data, compiled=False):
    guarded = isinstance(network, ag.Guard)
    called = torch.compile(network) if compiled else network

    def run():
        network.zero_grad(set_to_none=True)
        with torch.autocast(device.type, torch.bfloat16):
            loss = called(data.x, data.y, mask=data.mask).loss if guarded else F.cross_entropy(called(data.x), data.y)
        loss.backward()

    return run


PLACE = 120
BARS = [
    *(Bar(f"guard, {name}", PLAIN) for name in (*FIRST_ORDER, *SECOND_ORDER)),
    *(Bar(f"guard, {name}, compiled", COMPILED) for name in FIRST_ORDER),
]
WORKLOADS = [
    Workload(
        f"throughput_{name}",
        f"{title} in bf16, 224 x 224",
        make,
        size={"images": 64, "side": 224},
        quick={"images": 4, "side": 224},
        bars=BARS,
        devices=("cuda",),
        per_image="images",
    )
    for name, title, make in (("resnet50", "ResNet-50", resnet50), ("swin", "MTL-Swin-Unet's encoder", swin))
]
