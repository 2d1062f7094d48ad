"""Every kind of penalty, head and weighting on a small network, and batches that processes share unevenly."""

from contextlib import nullcontext

import torch
from torch.overrides import TorchFunctionMode

import attribguard as ag
from attribguard.penalties.attribution import ExpectedGradients, GradientTimesInput, InputGradient, IntegratedGradients
from tests.heads.small import SHAPE, annotated_batch, both, strided

ATTRIBUTIONS = {InputGradient: 1e3, GradientTimesInput: 3e3, IntegratedGradients: 3e3, ExpectedGradients: 2e4}


def on_map(kind):
    return ag.AttributionPenalty(ATTRIBUTIONS[kind], kind(), name=kind.__name__)


def all_together():
    heads = [ag.SegmentationHead(2, 0.4), ag.ReconstructionHead(0.3, target="masked")]
    penalties = [ag.ActDiff(5.0), ag.GradMask(10.0), ag.RRR(1e5), ag.GradCAMRRR(0.1), *map(on_map, ATTRIBUTIONS)]
    return {"penalties": penalties, "heads": heads}


# First-order: what is in the loss is differentiated once. Terms are made anew each time, because a guard owns them; the
# weights make their gradients about as large as those of the criterion, so that an error in one shows.
FIRST_ORDER = {
    "ActDiff": lambda: {"penalties": [ag.ActDiff(10.0)]},
    "ActDiff twice": lambda: {
        "penalties": [ag.ActDiff(3.0, layers="0", name="early"), ag.ActDiff(5.0, corruption="mean", norm="l2")]
    },
    "GradCAMRRR": lambda: {"penalties": [ag.GradCAMRRR(0.1)]},
    "GradCAMRRR of a projection": lambda: {"penalties": [ag.GradCAMRRR(3e3, cam="hirescam", score="projection")]},
    "SegmentationHead": lambda: {"heads": [ag.SegmentationHead(2, 0.4)]},
    "ReconstructionHead": lambda: {"heads": [ag.ReconstructionHead(0.3)]},
    "ReconstructionHead of masked images": lambda: {"heads": [ag.ReconstructionHead(0.3, target="masked")]},
    "heads without a criterion": lambda: {"heads": both(), "criterion": "none", "penalties": [ag.ActDiff(5.0)]},
    "a loss a sample": lambda: {
        "criterion": torch.nn.CrossEntropyLoss(reduction="none", label_smoothing=0.1),
        "heads": both(),
        "penalties": [ag.ActDiff(5.0), ag.GradCAMRRR(0.1)],
    },
}
# Second-order: an inner gradient is differentiated again.
SECOND_ORDER = {
    "GradMask": lambda: {"penalties": [ag.GradMask(10.0)]},
    "GradMask of the unhealthy": lambda: {"penalties": [ag.GradMask(1e3, score="nonhealthy", norm="squared")]},
    "RRR": lambda: {"penalties": [ag.RRR(1e5)]},
    "RRR of a projection": lambda: {"penalties": [ag.RRR(1e3, score="projection")]},
    "GradCAMRRR of an early layer": lambda: {"penalties": [ag.GradCAMRRR(0.1, layer="2")]},
    **{kind.__name__: lambda kind=kind: {"penalties": [on_map(kind)]} for kind in ATTRIBUTIONS},
}
TOGETHER = {
    "all together": all_together,
    "Uncertainty over all": lambda: {**all_together(), "weighting": ag.Uncertainty()},
    "GradNorm over all": lambda: {**all_together(), "weighting": ag.GradNorm()},
}
EVERYTHING = FIRST_ORDER | SECOND_ORDER | TOGETHER

N = 16
HALF = torch.arange(N) < N // 2
UNEVEN = torch.tensor([1, 1, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1], dtype=torch.bool)
# Halves and quarters of each are the shares of two and of four processes.
SITUATIONS = ("uneven", "nobody annotated", "no positive")


def data(situation):
    """The arguments of a guarded step over all N images; "nobody" and "no" are said of a half of them."""
    torch.manual_seed(1)
    x, y, mask, segmentation = annotated_batch(N)
    annotated = UNEVEN & HALF if situation == "nobody annotated" else UNEVEN
    if situation == "no positive":
        y, segmentation = torch.where(HALF, 0, y), segmentation.masked_fill(HALF[:, None, None], 0)
    return {"x": x, "target": y, "mask": mask, "segmentation": segmentation, "annotated": annotated}


def make(name, network=strided):
    """The guard of this name on a new `network()`, the same in each process."""
    torch.manual_seed(0)
    return ag.wrap(network(), example_input=SHAPE, **EVERYTHING[name]())


def step(call, guard, arguments, rows):
    """One guarded call on these rows, which draws for each image what it draws in any company."""
    device = next(guard.parameters()).device
    share = {name: value[rows].to(device) for name, value in arguments.items()}
    if guard.criterion == "none":
        share["target"] = None
    with DrawnByRow(rows):
        return call(share.pop("x"), share.pop("target"), **share)


def gradients(call, guard, situation, rows, parts=1, unsynced=nullcontext):
    """The gradients of one batch, on the CPU, in as many parts; all but the last part run in `unsynced()`."""
    guard.zero_grad()
    chunks = rows.chunk(parts)
    for chunk in chunks:
        with nullcontext() if chunk is chunks[-1] else unsynced():
            (step(call, guard, data(situation), chunk).loss / parts).backward()
    # Outside of several processes a parameter without a part in the loss has no gradient.
    found = {name: p.grad for name, p in guard.named_parameters()}
    return {
        name: (torch.zeros_like(p) if found[name] is None else found[name].clone()).cpu()
        for name, p in guard.named_parameters()
    }


class DrawnByRow(TorchFunctionMode):
    """Draws each image's random numbers from a generator of its own, and permutes images within pairs."""

    def __init__(self, rows):
        super().__init__()
        self.rows, self.calls = rows.tolist(), 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.randperm:
            return torch.arange(args[0], device=kwargs["device"]) ^ 1
        like = args[0] if func is torch.randn_like else None
        shape = like.shape if like is not None else args[0] if len(args) == 1 else args
        # What looks at a network draws for an image of its own.
        if func not in (torch.rand, torch.randn_like) or shape[0] != len(self.rows):
            return func(*args, **kwargs)
        drawn = self._drawn(torch.rand if like is None else torch.randn, shape)
        return drawn.to(kwargs.get("device") if like is None else like.device)

    def _drawn(self, draw, shape):
        self.calls += 1
        sources = (torch.Generator().manual_seed(1000 * self.calls + row) for row in self.rows)
        with torch._C.DisableTorchFunction():
            return torch.stack([draw(shape[1:], generator=source) for source in sources])


def assert_close(ours, theirs, *, together=False):
    """Gradients to 1e-5 of the largest one of their parameter; `together`: of the largest of all.

    What stands before a norm has gradients of 0 but for rounding, which is as large as the others make it.
    """
    assert ours.keys() == theirs.keys()
    largest = {name: expected.abs().max().item() for name, expected in theirs.items()}
    for name, expected in theirs.items():
        bound = 1e-5 * max(1.0, max(largest.values()) if together else largest[name])
        torch.testing.assert_close(ours[name], expected, rtol=0, atol=bound, msg=f"{name} {{}}".format)
