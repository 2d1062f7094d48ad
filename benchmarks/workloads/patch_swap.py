"""The patch-swap scan of one source against N targets, with T passes of dropout."""

import copy

import timm
import torch
from torch import nn

from attribguard.probes import patch_swap_scan
from benchmarks.networks import DropoutInTheMiddle, PaperNetwork
from benchmarks.peers import peer
from benchmarks.workload import Absent, Bar, Case, Check, Part, Sweep, Workload

OURS, NAIVE, BAAL = "common masks", "naive loop", "baal, passes stacked"
SEED = 0


def resnet_with_dropout():
    body = timm.create_model("resnet18", num_classes=0, in_chans=1)
    return nn.Sequential(body, nn.Dropout(0.5), nn.Linear(body.num_features, 10))


def scan_with(build):
    def make(device, side, patch, targets, passes):
        model = build().to(device).eval()
        source = torch.rand(1, 1, side, side, device=device)
        others = torch.rand(targets, 1, side, side, device=device)
        with torch.no_grad():
            label = int(model(source).argmax())
        positions = (side // patch) ** 2

        def ours():
            return patch_swap_scan(
                model, source, others, patch_size=patch, passes=passes, generator=SEED, progress=False
            ).certainty

        runs = {
            OURS: ours,
            NAIVE: Part(lambda: naive(model, source, others, label, patch, passes, [0]), 1 / positions),
            BAAL: by_baal(model, source, others, label, patch, passes, positions),
        }
        return Case(runs, lambda: checks(model, source, others[:4], label, patch))

    return make


@torch.no_grad()
def naive(model, source, targets, label, patch, passes, positions):
    """Position by position and pass by pass, all targets together, every image with masks of its own.

    Returns:
        (P, T, N), the certainties.
    """
    dropping(model)
    by_position = []
    for images in swapped(source, targets, patch, positions):
        by_position.append(torch.stack([model(images).softmax(1)[:, label] for _ in range(passes)]))
    model.eval()
    return torch.stack(by_position)


@torch.no_grad()
def with_masks(model, source, targets, label, patch, masks, positions):
    """The same with masks that are put in by hand, one a pass for all images."""
    (dropout,) = (module for module in model.modules() if isinstance(module, nn.Dropout))
    keep = []
    handle = dropout.register_forward_hook(lambda module, args, output: output * keep[-1] / (1 - dropout.p))
    by_position = []
    for images in swapped(source, targets, patch, positions):
        by_pass = []
        for mask in masks:
            keep.append(mask)
            by_pass.append(model(images).softmax(1)[:, label])
        by_position.append(torch.stack(by_pass))
    handle.remove()
    return torch.stack(by_position)


def swapped(source, targets, patch, positions):
    """The source with each of these patches, numbered row by row, taken from each target."""
    across = source.shape[3] // patch
    for position in positions:
        top, left = position // across * patch, position % across * patch
        images = source.repeat(len(targets), 1, 1, 1)
        images[:, :, top : top + patch, left : left + patch] = targets[:, :, top : top + patch, left : left + patch]
        yield images


def dropping(model):
    """Dropout on, all else in eval mode."""
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.train()


def by_baal(model, source, targets, label, patch, passes, positions):
    wrapper, dropout = peer("baal.modelwrapper"), peer("baal.bayesian.dropout")
    if wrapper is None or dropout is None:
        return Absent("baal is not installed")
    patched = dropout.patch_module(copy.deepcopy(model), inplace=False).eval()
    options = wrapper.TrainingArgs(use_cuda=source.is_cuda, replicate_in_memory=True)
    wrapped = wrapper.ModelWrapper(patched, options)

    def run():
        (images,) = swapped(source, targets, patch, [0])
        return wrapped.predict_on_batch(images, iterations=passes).softmax(1)[:, label].mean(-1)

    return Part(run, 1 / positions)


def checks(model, source, targets, label, patch):
    """On few targets: the loop with the same masks, and how far masks of their own are off."""
    passes, positions = 60, [0, 1]
    scan = patch_swap_scan(model, source, targets, patch_size=patch, passes=passes, generator=SEED, progress=False)
    (entering,) = shape_at_dropout(model, source)
    seeds = torch.randint(2**63 - 1, (passes,), generator=torch.Generator().manual_seed(SEED)).tolist()
    keeps = [torch.rand(entering, generator=torch.Generator().manual_seed(seed)) >= 0.5 for seed in seeds]
    common = with_masks(model, source, targets, label, patch, [keep.to(source) for keep in keeps], positions)
    ours = torch.from_numpy(scan.certainty[0].T[positions])
    own = naive(model, source, targets, label, patch, passes, positions[:1])
    # Of each pass the mean over images, which share a mask or do not.
    a, b = common[0].mean(1).double(), own[0].mean(1).double()
    error = (a.var() / len(a) + b.var() / len(b)).sqrt()
    return [
        Check(
            "certainties differ from the loop's with the same masks", (ours - common.mean(1).cpu()).abs().max(), 1e-6
        ),
        Check("standard errors from a loop with masks of its own", (a.mean() - b.mean()).abs() / error, 3),
    ]


@torch.no_grad()
def shape_at_dropout(model, source):
    """Of what enters the dropout for one image."""
    found = []
    (dropout,) = (module for module in model.modules() if isinstance(module, nn.Dropout))
    handle = dropout.register_forward_hook(lambda module, args, output: found.append(output.shape[1:]))
    model(source)
    handle.remove()
    return found


PLACE = 70
PAPER = {"side": 28, "patch": 4, "targets": 50, "passes": 100}
QUICK = {"side": 28, "patch": 14, "targets": 4, "passes": 4}
TEXT = "The loop and baal run at one of the positions, which all cost the same; the times are scaled to all of them."
WORKLOADS = [
    Workload(
        "patch_swap",
        "Patch-swap scan, conv, pool, dropout, linear",
        scan_with(PaperNetwork),
        PAPER,
        QUICK,
        bars=[Bar(NAIVE, OURS, least=150), Bar(BAAL, OURS)],
        sweeps=[
            Sweep("passes", (50, 100, 200), {OURS: 1.0, NAIVE: 1.0}),
            Sweep("targets", (25, 50, 100), {OURS: 1.0, NAIVE: 1.0}),
        ],
        text=TEXT,
    ),
    Workload(
        "patch_swap_resnet",
        "Patch-swap scan, ResNet-18 with dropout before the head",
        scan_with(resnet_with_dropout),
        {**PAPER, "patch": 7, "targets": 20},
        QUICK,
        bars=[Bar(NAIVE, OURS, least=80), Bar(BAAL, OURS)],
        sweeps=[Sweep("targets", (10, 20, 40), {OURS: 1.0})],
        rounds=7,
        text=TEXT,
    ),
    Workload(
        "patch_swap_middle",
        "Patch-swap scan, dropout in the middle",
        scan_with(DropoutInTheMiddle),
        {"side": 28, "patch": 14, "targets": 20, "passes": 50},
        QUICK,
        bars=[Bar(NAIVE, OURS, least=1.8), Bar(BAAL, OURS)],
        sweeps=[Sweep("passes", (10, 20, 40), {OURS: 1.0, NAIVE: 1.0})],
        rounds=7,
        text=TEXT,
    ),
]
