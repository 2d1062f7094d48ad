import pytest
import timm
import torch
import torch.nn.functional as F
from timm.layers import set_fused_attn
from torch import nn

from attribguard.errors import ModelError
from attribguard.probes.patch_swap.dropout_calls import find_dropouts
from tests.probes.patch_swap.one_pass_at_a_time import CASES


def find(network, size=8, channels=1):
    return find_dropouts(network, network, torch.randn(3, channels, size, size))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", CASES)
def test_dropout_is_found_whatever_its_form_and_the_networks_mode(name, training):
    case = CASES[name]()
    found = find(case.network.train(training))
    # Behind the axis of the images, where these have one entry each.
    noises = [call.noise[1:] if call.noise[0] == 1 else call.noise for call in found.live]
    assert list(zip(noises, [call.p for call in found.live], strict=True)) == case.masks
    assert all(module.training == training for module in case.network.modules())


class Calls(nn.Module):
    """Dropout that is always off, always on, by the flag, and with a share of 0."""

    def forward(self, x):
        x = F.dropout(x, 0.1, training=False)
        x = F.dropout(x, 0.2)
        x = torch.dropout(x, 0.3, self.training)
        x = F.dropout(x, 0.0, self.training)
        x = F.dropout(x, 0.4 if self.training else 0.0)  # the flag in the share
        x = torch.feature_dropout(x, 0.5, train=self.training)
        return F.alpha_dropout(x).flatten(1)  # off by default


def test_a_call_counts_where_training_would_drop_something():
    found = find(Calls())
    assert [(call.number, call.p) for call in found.live] == [(1, 0.2), (2, 0.3), (4, 0.4), (5, 0.5)]
    assert found.calls == 7


def test_dropout_called_past_the_hooks_of_its_module_is_found():
    class Direct(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.2)

        def forward(self, x):
            return self.drop.forward(x).flatten(1)

    assert [call.p for call in find(Direct()).live] == [0.2]


def test_batch_norm_and_stochastic_depth_never_see_a_train_flag():
    network = timm.create_model("resnet10t", in_chans=1, drop_rate=0.2, drop_path_rate=0.3).train()
    seen = []
    for module in network.modules():
        if not isinstance(module, (nn.Dropout, timm.models.ResNet)):
            module.register_forward_pre_hook(lambda module, args: seen.append(module.training))
    find(network)
    assert seen and not any(seen)


def test_the_axis_of_the_images_is_found_wherever_it_stands():
    class SequenceFirst(nn.Module):
        def forward(self, x):
            tokens = x.flatten(2).permute(2, 0, 1)  # (L, N, C)
            return F.dropout(tokens, 0.5, self.training).mean(0)

    (call,) = find(SequenceFirst(), channels=3).live
    assert (call.axis, call.shape, call.noise) == (1, (64, 1, 3), (64, 1, 3))


def test_dropped_weights_have_one_mask_for_all_images():
    class DropConnect(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(3, 64))

        def forward(self, x):
            return x.flatten(1) @ F.dropout(self.weight, 0.5, self.training).T

    (call,) = find(DropConnect()).live
    assert (call.axis, call.noise) == (None, (3, 64))


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "torch"])
def test_attention_that_drops_inside_a_fused_function_is_one_clear_error(name):
    if name == "torch":
        network = nn.Sequential(nn.Flatten(1, 2), nn.TransformerEncoderLayer(8, 2, batch_first=True), nn.Flatten())
    else:
        network = timm.create_model(name, img_size=32, in_chans=1, attn_drop_rate=0.1)
    with pytest.raises(ModelError, match="drops attention inside"):
        find(network, size=8 if name == "torch" else 32)
    assert all(module.training for module in network.modules())


def test_attention_that_drops_by_a_call_of_its_own_is_found():
    before = timm.layers.use_fused_attn()
    set_fused_attn(False)
    try:
        network = timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=1, depth=2, attn_drop_rate=0.1)
    finally:
        set_fused_attn(bool(before))
    found = find(network, size=32)
    assert [call.noise for call in found.live] == [(1, 3, 5, 5)] * 2  # images, heads, tokens, tokens


def test_attention_without_dropout_is_no_obstacle():
    network = timm.create_model("vit_tiny_patch16_224", img_size=32, in_chans=1, depth=2, drop_rate=0.3)
    assert [call.noise for call in find(network, size=32).live] == [(1, 192)]


def test_other_randomness_in_eval_mode_is_one_clear_error():
    class Noisy(nn.Module):
        def forward(self, x):
            return (x + torch.randn_like(x)).flatten(1)

    with pytest.raises(ModelError, match="draws random numbers in eval mode"):
        find(Noisy())


def test_a_path_that_depends_on_the_flag_is_one_clear_error():
    class Branch(nn.Module):
        def forward(self, x):
            x = F.dropout(x, 0.1, self.training)
            return (F.dropout(x, 0.2, True) if self.training else x).flatten(1)

    with pytest.raises(ModelError, match="calls dropout elsewhere in training"):
        find(Branch())


def test_nothing_stays_on_the_model_after_an_error():
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    network = nn.Sequential(nn.Dropout(), Fails())
    x, state = torch.rand(3, 1, 8, 8), torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no"):
        find_dropouts(network, network, x)
    hooks = [m._forward_hooks for m in network.modules()] + [m._forward_pre_hooks for m in network.modules()]
    assert not any(hooks) and all(module.training for module in network.modules())
    assert torch.equal(torch.get_rng_state(), state)
