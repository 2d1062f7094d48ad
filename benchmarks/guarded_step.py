"""What a guarded training step costs next to the plain one, on ResNet-18 in train mode."""

import copy
import time

import timm
import torch
import torch.nn.functional as F

import attribguard as ag

SIZE, BATCH = 100, 16


def contestants():
    """Name to a function that runs one forward and backward pass. All start from the same weights."""
    torch.manual_seed(0)
    model = timm.create_model("resnet18", num_classes=2)
    x, y = torch.randn(BATCH, 3, SIZE, SIZE), torch.arange(BATCH) % 2
    mask = torch.zeros(BATCH, 1, SIZE, SIZE)
    mask[:, :, 30:70, 30:70] = 1

    unguarded = copy.deepcopy(model)

    def plain():
        F.cross_entropy(unguarded(x), y).backward()

    penalties = {
        "criterion only": [],
        "ActDiff": [ag.ActDiff(1.0)],
        "GradMask": [ag.GradMask(1.0)],
        "RRR": [ag.RRR(1.0)],
        "GradMask + RRR": [ag.GradMask(1.0), ag.RRR(1.0)],
        "GradCAMRRR": [ag.GradCAMRRR(1.0)],
        "AttributionPenalty, 4 steps of integrated gradients": [ag.AttributionPenalty(1.0, ag.IntegratedGradients(4))],
    }
    runs = {"plain step": plain}
    for name, chosen in penalties.items():
        guard = ag.wrap(copy.deepcopy(model), penalties=chosen)
        runs[name] = lambda guard=guard: guard(x, y, mask=mask).loss.backward()
    return runs


def measure(rounds):
    """Seconds of each contestant, in turn, round after round: name -> one number a round."""
    runs = contestants()
    for run in runs.values():  # warm-up
        run()
    seconds = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return seconds
