"""RRR on Grad-CAM, whose inner gradient reaches from the logits down to one layer."""

from benchmarks.guarded import gradients_agree, guarded_run, plain_run, published_run
from benchmarks.networks import UNetEncoder, UNetPath, random_batch, resnet18
from benchmarks.workload import Bar, Case, Sweep, Workload
from benchmarks.workloads.actdiff import guarded_unet, unet_step

OURS = "guard, GradCAMRRR"


def on_resnet(device, batch, side, width):
    model = resnet18(width=width).to(device)
    data = random_batch(batch, side, device)
    runs = {
        "plain step": plain_run(model, data),
        OURS: guarded_run(model, data, ["gradcamrrr"]),
        "public step": published_run(model, data, ["gradcamrrr"]),
    }
    return Case(runs, lambda: [gradients_agree(model, data, ["gradcamrrr"])])


def on_unet(device, batch, side, width):
    encoder = UNetEncoder(width).to(device)
    path = UNetPath(encoder.widths).to(device)
    data = random_batch(batch, side, device)
    runs = {
        "plain step": unet_step(encoder, path, data, ()),
        OURS: guarded_unet(encoder, path, data, ["gradcamrrr"]),
        "public step": unet_step(encoder, path, data, ["gradcamrrr"]),
    }
    return Case(runs, lambda: [gradients_agree(encoder, data, ["gradcamrrr"], layer="levels.3")])


PLACE = 40
SIZE, QUICK = {"batch": 32, "side": 100, "width": 64}, {"batch": 6, "side": 48, "width": 8}
BARS = [Bar(OURS, "plain step", most=1.05), Bar("public step", "plain step")]
WORKLOADS = [
    Workload(
        "gradcamrrr",
        "GradCAMRRR, ResNet-18",
        on_resnet,
        SIZE,
        QUICK,
        BARS,
        sweeps=[Sweep("batch", (8, 16, 32), {OURS: 1.0})],
    ),
    Workload(
        "gradcamrrr_unet",
        "GradCAMRRR, UNet with decoder",
        on_unet,
        {**SIZE, "width": 16},
        {**QUICK, "width": 4},
        BARS,
        sweeps=[Sweep("side", (64, 96, 128), {OURS: 2.0})],
    ),
]
