"""Captum's Grad-CAM and the library's measure alike, and what a network looks at shows."""

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from attribguard.data import Crosses
from attribguard.models import actdiff_cnn
from examples import captum_in_a_probe as example

INTEGRATED, CAPTUM, OURS, _ = example.ATTRIBUTORS


class Reads(nn.Module):
    """Two logits: the sum of what lies in a region, and its negative."""

    def __init__(self, region):
        super().__init__()
        self.register_buffer("region", region)

    def forward(self, x):
        read = (x * self.region).flatten(1).sum(1)
        return torch.stack([read, -read], 1)


def test_a_network_that_reads_the_crosses_or_the_box_is_told_by_integrated_gradients():
    """It says class 0 of all images, for which the sum speaks, and is asked about that, also where it is wrong."""
    data = Crosses("test", 16)
    box = torch.zeros(28, 28)
    box[23:25, 3:6] = box[23:25, 22:25] = 1  # both places; only one is not black
    only = {INTEGRATED: example.ATTRIBUTORS[INTEGRATED]}
    for region, inside in ((box, 0.0), (torch.ones(28, 28) - box, 1.0)):
        found = example.measure(Reads(region), data, only, pixels=0)[INTEGRATED]
        assert set(found) == {"SoftIoR", "EnergyInside"}
        for value in found.values():
            assert value.item() == pytest.approx(inside, abs=1e-6)
    half = example.measure(Reads(torch.ones(28, 28)), data, only, pixels=0)[INTEGRATED]["EnergyInside"]
    crosses, boxes = ((data.images * part).sum((1, 2, 3)) for part in (data.masks, box))
    assert half.item() == pytest.approx((crosses / (crosses + boxes)).mean().item(), abs=1e-5)


def test_both_grad_cams_agree():
    network = actdiff_cnn(channels=8, norm="batch").eval()
    both = {name: example.ATTRIBUTORS[name] for name in (CAPTUM, OURS)}
    found = example.measure(network, Crosses("test", 32), both)
    for measure in ("SoftIoR", "EnergyInside"):
        assert 0 < found[OURS][measure] < 1
        assert found[CAPTUM][measure].item() == pytest.approx(found[OURS][measure].item(), abs=1e-4)


def test_the_command_prints_both_networks(monkeypatch):
    measure, few = example.measure, {name: example.ATTRIBUTORS[name] for name in (CAPTUM, OURS)}
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(example, "measure", lambda network, data: measure(network, data, few))
    app = example.typer.Typer()
    app.command()(example.main)
    done = CliRunner().invoke(app, "--images 32 --epochs 1".split())
    assert done.exit_code == 0, done.output
    for name in few:
        assert name in done.output
    assert "plain: SoftIoR" in done.output and "guarded: EnergyInside" in done.output
