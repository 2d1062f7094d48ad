"""Captum's attributions in the library's probes, beside the library's own: does the network look at the crosses?

    python -m examples.captum_in_a_probe --seed 0

trains one network plain and one with ActDiff (see `plain_loop.py`) and prints for each attribution how much of it lies
on the crosses, 2 pixels around them included. It needs one core of a CPU for a minute.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import torch
import typer
from captum.attr import IntegratedGradients, LayerGradCam
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection

from attribguard import cam, from_captum, masks, probes, saliency
from attribguard.attribution import Attributor
from attribguard.data import Crosses
from examples.plain_loop import guarded, train

# Each is called as attributor(model, x, target) and gives (N, H, W).
ATTRIBUTORS: dict[str, Attributor] = {
    "integrated gradients (captum)": from_captum(IntegratedGradients, n_steps=32),
    "Grad-CAM of the last block (captum)": from_captum(LayerGradCam, layer="block4", relu_attributions=True),
    "Grad-CAM of the last map (attribguard)": cam,
    "input gradient (attribguard)": saliency,
}


def measure(
    network: nn.Module, data: Crosses, attributors: Mapping[str, Attributor] = ATTRIBUTORS, pixels: int = 2
) -> dict[str, dict[str, Tensor]]:
    """Attribution to the means over the images of the share inside, of the stretched map and of its positive part."""
    results = {}
    for name, attributor in attributors.items():
        metrics = MetricCollection([probes.SoftIoR(normalize="minmax"), probes.EnergyInside()])
        for x, _, mask in DataLoader(data, batch_size=64):
            # Of the predicted class: what misleads a network speaks against the true one, and would not be counted.
            metrics.update(attributor(network, x, None), masks.dilate(mask, pixels))
        results[name] = metrics.compute()
    return results


def table(results: Mapping[str, Mapping[str, Mapping[str, Tensor]]]) -> Table:
    """A line for each attribution, two columns for each network."""
    measures = ("SoftIoR", "EnergyInside")
    shown = Table("attribution", *(f"{network}: {measure}" for network in results for measure in measures))
    for name in next(iter(results.values())):
        shown.add_row(name, *(f"{results[network][name][measure]:.3f}" for network in results for measure in measures))
    return shown


def main(
    seed: Annotated[int, typer.Option(min=0, help="Of images, weights and order.")] = 0,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    images: Annotated[int, typer.Option(min=2, help="To train on.")] = 500,
) -> None:
    """Measure captum's attributions and the library's own of a plain and a guarded network."""
    torch.set_num_threads(1)  # the figures then do not depend on the machine's cores
    data, test = Crosses("train", images, seed=seed), Crosses("test", 128, seed=seed)
    results = {}
    for network, weight in (("plain", 0.0), ("guarded", 10.0)):
        torch.manual_seed(seed)
        guard = guarded(weight)
        for _ in train(guard, data, epochs):
            pass
        results[network] = measure(guard.unwrap(), test)
    Console().print(table(results))


if __name__ == "__main__":
    typer.run(main)
