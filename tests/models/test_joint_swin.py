import pytest
import torch

from attribguard.errors import RangeError
from attribguard.models import joint_swin, swin_backbone

SMALL = {"img_size": 32, "depths": (1, 2), "embed_dim": 12, "num_heads": (1, 2)}


def test_the_default_is_the_published_size():
    assert sum(p.numel() for p in joint_swin().parameters()) == 40_829_846


def test_a_trained_encoder_is_taken_as_it_is_and_frozen():
    encoder = swin_backbone(**SMALL)
    before = encoder.norm.weight.clone()
    model = joint_swin(5, segmentation_encoder=encoder, **SMALL)
    assert model.segmentation_encoder is encoder
    assert torch.equal(encoder.norm.weight, before)
    assert model.frozen and not any(p.requires_grad for p in encoder.parameters())
    assert model(torch.rand(2, 3, 32, 32)).shape == (2, 5)


def test_both_transformers_have_the_sizes_and_weights_of_their_own():
    model = joint_swin(in_chans=1, **SMALL)
    first, second = (dict(network.named_parameters()) for network in (model.segmentation_encoder, model.classifier))
    assert {name: p.shape for name, p in first.items()} == {name: p.shape for name, p in second.items()}
    assert not torch.equal(first["patch_embed.proj.weight"], second["patch_embed.proj.weight"])
    assert model.head.in_features == 48


def test_the_means_of_both_last_maps_are_classified():
    model = joint_swin(**SMALL).eval()
    x, maps = torch.rand(2, 3, 32, 32), []
    for network in (model.segmentation_encoder, model.classifier):
        network.norm.register_forward_hook(lambda module, args, output: maps.append(output))
    logits = model(x)
    features = torch.cat([features.flatten(1, 2).mean(1) for features in maps], 1)
    torch.testing.assert_close(logits, features @ model.head.weight.T + model.head.bias)


@pytest.mark.parametrize(("options", "named"), [({"num_classes": 0}, "num_classes"), ({"img_size": 31}, "img_size")])
def test_bad_options_are_refused_by_name(options, named):
    with pytest.raises(RangeError, match=named):
        joint_swin(**{**SMALL, **options})
