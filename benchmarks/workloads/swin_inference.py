"""MTL-Swin-Unet at inference: what is not asked for costs nothing, and pixels are laid out late."""

import copy

import torch

from attribguard.heads.swin_decoder import SwinDecoder
from attribguard.models import mtl_swin_unet
from benchmarks.workload import Bar, Case, Check, Sweep, Workload

ALONE, ASKED, EVERYTHING = "classifier alone", "only the class asked for", "class, segmentation and reconstruction"
PUBLISHED, OURS = "published order", "class and segmentation"


def build(device, side, width, tasks):
    window = 7 if side % 224 == 0 else 4
    return mtl_swin_unet(tasks=tasks, img_size=side, embed_dim=width, window_size=window).to(device).eval()


def time_of_the_class(device, images, side, width):
    guard = build(device, side, width, ("cls", "seg", "rec"))
    alone = copy.deepcopy(guard).unwrap()
    x = torch.rand(images, 3, side, side, device=device)

    @torch.no_grad()
    def checks():
        return [Check("logits differ from the classifier's", (guard(x) - alone(x)).abs().max(), 0)]

    runs = {ALONE: lambda: alone(x), ASKED: lambda: guard(x), EVERYTHING: lambda: guard.predict(x)}
    return Case({name: torch.no_grad()(run) for name, run in runs.items()}, checks)


def memory_of_the_pixels(device, images, side, width):
    guard = build(device, side, width, ("cls", "seg"))
    published = build(device, side, width, ("cls", "seg"))
    published.load_state_dict(guard.state_dict())
    decoder = published.heads["segmentation"].decoder
    decoder.__class__ = PixelsFirst
    x = torch.rand(images, 3, side, side, device=device)

    @torch.no_grad()
    def checks():
        ours, theirs = (each.predict(x).predictions["segmentation"] for each in (guard, published))
        return [Check("predictions differ, relative", (ours - theirs).abs().max() / theirs.abs().max(), 1e-6)]

    runs = {PUBLISHED: lambda: published.predict(x), OURS: lambda: guard.predict(x), ALONE: lambda: guard(x)}
    return Case({name: torch.no_grad()(run) for name, run in runs.items()}, checks)


class PixelsFirst(SwinDecoder):
    """The end of the decoder in the order of the published code: pixels, then the norm, then the 1x1 convolution."""

    def _pixels(self, x):
        x = self.final.expand(self.norm(x)).unflatten(-1, (*self.final.by, -1))
        x = x.transpose(2, 3).flatten(3, 4).flatten(1, 2)
        x = self.final.norm(x)  # under one name, as there, so that what came before is let go
        return self.out(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


PLACE = 110
WORKLOADS = [
    Workload(
        "swin_inference",
        "MTL-Swin-Unet, inference with only the class asked for",
        time_of_the_class,
        size={"images": 8, "side": 224, "width": 96},
        quick={"images": 2, "side": 64, "width": 24},
        bars=[Bar(ASKED, ALONE, most=1.02), Bar(EVERYTHING, ALONE)],
        sweeps=[Sweep("images", (2, 4, 8), {ASKED: 1.0})],
    ),
    Workload(
        "swin_memory",
        "MTL-Swin-Unet, peak memory of a segmentation at inference",
        memory_of_the_pixels,
        size={"images": 8, "side": 224, "width": 96},
        quick={"images": 2, "side": 64, "width": 24},
        bars=[Bar(OURS, PUBLISHED, most=0.75), Bar(OURS, ALONE)],
        sweeps=[Sweep("images", (2, 4, 8), {OURS: 1.0, PUBLISHED: 1.0})],
        measure="bytes",
    ),
]
