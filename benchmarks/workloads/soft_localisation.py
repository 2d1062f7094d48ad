"""Soft IoBB and IoR of class activation maps, next to the inference forward alone."""

import numpy as np
import timm
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam

import attribguard as ag
from benchmarks.peers import peer
from benchmarks.workload import Absent, Bar, Case, Check, Sweep, Workload

FORWARD, OURS, CAPTUM, PEER = "inference forward", "cam, SoftIoBB and SoftIoR", "captum", "pytorch-grad-cam"


def make(device, images, side, depth):
    model = timm.create_model(f"resnet{depth}", num_classes=10).to(device).eval()
    x = torch.rand(images, 3, side, side, device=device)
    with torch.no_grad():
        target = model(x).argmax(1)  # whose maps are not 0 everywhere
    boxes = torch.tensor([[side // 4, side // 4, 3 * side // 4, side // 2]] * images, device=device)
    inside = torch.zeros(images, side, side, device=device)
    inside[:, side // 4 : side // 2, side // 4 : 3 * side // 4] = 1

    @torch.no_grad()
    def forward():
        return model(x)

    def ours():
        maps = ag.cam(model, x, target)
        scores = []
        for metric in (ag.probes.SoftIoBB(), ag.probes.SoftIoR()):
            metric = metric.to(device)
            metric.update(maps, boxes)
            scores.append(metric.compute())
        return scores

    captum_cam = LayerGradCam(model, model.layer4)

    def by_captum():
        cam = captum_cam.attribute(x, target=target, relu_attributions=True)
        maps = F.interpolate(cam.detach(), x.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        return by_hand((maps - low) / (high - low), inside)

    runs = {FORWARD: forward, OURS: ours, CAPTUM: by_captum, PEER: by_grad_cam(model, x, target, inside)}

    def checks():
        pairs = zip(ours(), by_captum(), strict=True)
        return [Check(f"scores differ from {CAPTUM}'s map", max(abs(float(a - b)) for a, b in pairs), 1e-5)]

    return Case(runs, checks)


def by_hand(maps, inside):
    """Means of IoBB and IoR over the images whose map is not flat."""
    both = (maps * inside).sum((1, 2))
    return (both / inside.sum((1, 2))).nanmean(), (both / maps.sum((1, 2))).nanmean()


def by_grad_cam(model, x, target, inside):
    package, targets = peer("pytorch_grad_cam"), peer("pytorch_grad_cam.utils.model_targets")
    if package is None or targets is None:
        return Absent("grad-cam is not installed")
    wanted = [targets.ClassifierOutputTarget(int(y)) for y in target]
    box = inside.cpu().numpy()

    def run():
        with package.GradCAM(model=model, target_layers=[model.layer4]) as cam:
            maps = cam(input_tensor=x, targets=wanted)
        both = (maps * box).sum((1, 2))
        return np.mean(both / box.sum((1, 2))), np.mean(both / np.maximum(maps.sum((1, 2)), 1e-12))

    return run


PLACE = 100
WORKLOADS = [
    Workload(
        "soft_localisation",
        "Soft IoBB and IoR, ResNet-50, 224 x 224",
        make,
        size={"images": 16, "side": 224, "depth": 50},
        quick={"images": 2, "side": 64, "depth": 18},
        bars=[
            Bar(OURS, FORWARD, most=1.03),
            Bar(PEER, OURS, least=3),
            Bar(CAPTUM, FORWARD),
            Bar(PEER, FORWARD),
        ],
        sweeps=[Sweep("images", (4, 8, 16), {OURS: 1.0})],
        rounds=7,
        sweep_size={"side": 112},
        text="pytorch-grad-cam normalises before it resizes, which shifts its scores; they are not compared.",
    )
]
