"""The ActDiff paper's autoencoder and UNet as guards."""

import pytest
import torch

import attribguard as ag
from attribguard.errors import RangeError
from attribguard.models import actdiff_autoencoder, actdiff_unet
from tests.networks import batch

BUILDERS = [actdiff_autoencoder, actdiff_unet]


@pytest.mark.parametrize("build", BUILDERS)
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_it_classifies_and_draws_and_trains_every_parameter(build, norm):
    guard = build(3, 2, img_size=21, channels=4, norm=norm)
    x = torch.rand(4, 2, 21, 21)
    out = guard(x, torch.tensor([0, 1, 2, 0]))
    out.loss.backward()
    assert out.logits.shape == (4, 3) and out.predictions["reconstruction"].shape == x.shape
    assert out.weights == {"criterion": 1.0, "reconstruction": 10.0}
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in guard.parameters())


@pytest.mark.parametrize("build", BUILDERS)
def test_actdiff_sees_the_encoder_alone_and_true_pre_activations(build):
    guard = build(channels=4, norm="batch", penalties=[ag.ActDiff(10.0)])
    assert guard.layers["actdiff"] == tuple(f"block{i}.{j}:input" for i in range(1, 5) for j in (2, 5))


def finer_maps_matter(guard):
    """Whether the drawing changes with the finer maps where the deepest stays as it is."""
    head = guard.heads["reconstruction"]
    maps = [torch.rand(1, 4 << i, 28 >> i, 28 >> i) for i in range(4)]
    with torch.no_grad():
        first, second = head.decoder(maps), head.decoder([maps[0] + 1, maps[1], maps[2], maps[3]])
    return not torch.equal(first, second)


def test_the_unet_joins_the_encoders_maps_and_the_autoencoder_does_not():
    assert finer_maps_matter(actdiff_unet(channels=4))
    assert not finer_maps_matter(actdiff_autoencoder(channels=4))


def test_masked_reconstruction_redraws_what_the_penalty_compares_with():
    guard = actdiff_autoencoder(channels=4, target="masked", loss="mse", penalties=[ag.ActDiff(1.0, corruption="zero")])
    x, y, mask = batch(size=28)
    x = x.sigmoid()
    out = guard(x, y, mask=mask)
    expected = (out.predictions["reconstruction"] - x * mask).square().mean()
    torch.testing.assert_close(out.terms["reconstruction"], expected.detach())


def test_further_heads_stand_beside_it_and_bad_options_are_refused():
    assert list(actdiff_unet(channels=4, heads=[ag.SegmentationHead(2, 0.4)]).heads) == [
        "reconstruction",
        "segmentation",
    ]
    for options in ({"norm": "layer"}, {"channels": 0}, {"loss": "l1"}, {"target": "output"}, {"weight": -1.0}):
        with pytest.raises(RangeError):
            actdiff_autoencoder(**options)
