"""ActDiff: all rows annotated, a fifth of them, and on a UNet whose decoder it does not need."""

import copy

import torch
import torch.nn.functional as F

import attribguard as ag
from benchmarks import baselines
from benchmarks.guarded import gradients_agree, guarded_run, plain_run, published_run
from benchmarks.networks import UNetEncoder, UNetPath, random_batch, resnet18
from benchmarks.workload import Bar, Case, Sweep, Workload

OURS = "guard, ActDiff"


def on_resnet(device, batch, side, width):
    model = resnet18(width=width).to(device)
    data = random_batch(batch, side, device)
    runs = {
        "plain step": plain_run(model, data),
        OURS: guarded_run(model, data, ["actdiff"]),
        "published step": published_run(model, data, ["actdiff"]),
    }
    return Case(runs, lambda: [gradients_agree(model, data, ["actdiff"])])


def partly_annotated(device, batch, side, width):
    model = resnet18("none", width).to(device)
    data = random_batch(batch, side, device)
    annotated = torch.arange(batch, device=device) % 5 == 0
    runs = {
        "plain step": plain_run(model, data),
        OURS: guarded_run(model, data, ["actdiff"], annotated),
        "published step": published_run(model, data, ["actdiff"]),
    }
    return Case(runs, lambda: [gradients_agree(model, data, ["actdiff"], annotated=annotated)])


def on_unet(device, batch, side, width):
    encoder = UNetEncoder(width).to(device)
    path = UNetPath(encoder.widths).to(device)
    data = random_batch(batch, side, device)
    runs = {
        "plain step": unet_step(encoder, path, data, ()),
        OURS: guarded_unet(encoder, path, data, ["actdiff"]),
        "published step": unet_step(encoder, path, data, ["actdiff"]),
    }
    return Case(runs, lambda: [gradients_agree(encoder, data, ["actdiff"], layer="levels.3")])


def unet_step(encoder, path, data, penalties):
    """Cross entropy, the drawing's squared error and the published penalties; their corrupted pass draws too."""
    encoder, path = copy.deepcopy(encoder), copy.deepcopy(path)
    drawn = []

    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder, self.path = encoder, path

        def forward(self, x):
            maps = self.encoder.maps(x)
            drawn.append(self.path(maps))
            return self.encoder.fc(maps[-1].mean((2, 3)))

    model = Both()
    layer = encoder.levels[-1]

    def run():
        model.zero_grad(set_to_none=True)
        drawn.clear()
        further = lambda: F.mse_loss(drawn[0], data.x)  # noqa: E731
        baselines.published_step(model, *data, penalties, layer=layer, further=further)

    return run


def guarded_unet(encoder, path, data, names):
    encoder, path = copy.deepcopy(encoder), copy.deepcopy(path)
    layers = [f"levels.{i}" for i in range(len(encoder.levels))]
    head = ag.ReconstructionHead(1.0, loss="mse", decoder=path, layers=layers)
    return guarded_run(encoder, data, names, heads=[head], example_input=data.x[:1])


PLACE = 20
SIZE, QUICK = {"batch": 32, "side": 100, "width": 64}, {"batch": 6, "side": 48, "width": 8}
WORKLOADS = [
    Workload(
        "actdiff",
        "ActDiff, ResNet-18",
        on_resnet,
        SIZE,
        QUICK,
        bars=[Bar(OURS, "plain step", most=2.25), Bar("published step", "plain step"), Bar("published step", OURS)],
        sweeps=[
            Sweep("batch", (8, 16, 32), {OURS: 1.0, "published step": 1.0}),
            Sweep("side", (64, 96, 128), {OURS: 2.0, "published step": 2.0}),
        ],
    ),
    Workload(
        "actdiff_annotated",
        "ActDiff with 20 % of the rows annotated, ResNet-18 without norm",
        partly_annotated,
        SIZE,
        QUICK,
        bars=[Bar(OURS, "plain step", most=1.35), Bar("published step", "plain step")],
        sweeps=[Sweep("batch", (10, 20, 40), {OURS: 1.0})],
    ),
    Workload(
        "actdiff_unet",
        "ActDiff, UNet with decoder",
        on_unet,
        {**SIZE, "width": 16},
        {**QUICK, "width": 4},
        bars=[Bar(OURS, "plain step", most=1.6), Bar("published step", "plain step")],
        sweeps=[Sweep("side", (64, 96, 128), {OURS: 2.0})],
    ),
]
