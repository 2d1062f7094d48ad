"""What one watched pass tells: activations, calls, layouts."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from attribguard.survey import survey
from tests.networks import plain_cnn


def look(model, shape, select=lambda output: output):
    return survey(model, torch.zeros(1, *shape), select)


ACTIVATIONS = [
    nn.ReLU(), nn.ReLU(True), nn.ReLU6(), nn.LeakyReLU(), nn.PReLU(), nn.RReLU(), nn.ELU(), nn.CELU(), nn.SELU(),
    nn.GELU(), nn.SiLU(), nn.SiLU(True), nn.Mish(), nn.Softplus(), nn.Softsign(), nn.Hardswish(), nn.Hardtanh(),
    nn.Tanh(), timm.layers.GELU(),
]  # fmt: skip


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=repr)
def test_activation_modules_are_found(activation):
    seen = look(nn.Sequential(nn.Conv2d(1, 2, 3), activation, nn.Flatten(), nn.Linear(8, 2)), (1, 4, 4))
    assert list(seen.activations) == ["1:input"]
    assert seen.unplaced == ()


@pytest.mark.parametrize(
    "function", [F.relu, torch.relu, torch.Tensor.relu, torch.relu_, torch.Tensor.relu_, F.gelu, F.silu, torch.tanh]
)
def test_activation_functions_are_found_at_the_module_before(function):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(1, 2, 3), nn.Linear(8, 2)

        def forward(self, x):
            return self.fc(function(self.conv(x)).flatten(1))

    assert list(look(Net(), (1, 4, 4)).activations) == ["conv"]


@pytest.mark.parametrize("gate", [nn.Sigmoid(), nn.Hardsigmoid(), nn.Softmax(1), nn.Identity()])
def test_gates_are_no_activations(gate):
    seen = look(nn.Sequential(nn.Conv2d(1, 2, 3), gate, nn.Flatten(), nn.Linear(8, 2)), (1, 4, 4))
    assert not seen.activations and not seen.unplaced


def test_a_transformer_block_is_seen_although_eval_mode_has_a_fused_path():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)

        def forward(self, x):
            return self.block(x.flatten(2).transpose(1, 2)).mean(1)

    assert list(look(Net(), (8, 4, 4)).activations) == ["block.linear1"]


@pytest.mark.parametrize(
    ("name", "size", "point", "axis"),
    [
        ("resnet18", 64, "layer4", 1),
        ("densenet121", 64, "features.norm5", 1),
        ("convnext_atto", 64, "stages.3", 1),
        ("convnext_atto", 64, "stages.3.blocks.1.mlp.act:input", 1),
        ("swin_tiny_patch4_window7_224", 224, "layers.3", 3),
        ("swin_tiny_patch4_window7_224", 224, "layers.1.blocks.0.mlp.act:input", 2),
        ("swin_tiny_patch4_window7_224", 224, "norm", 3),
        ("vit_tiny_patch16_224", 224, "blocks.11", 2),
        ("vit_tiny_patch16_224", 224, "patch_embed", 2),
    ],
)
def test_the_operators_tell_the_channel_axis(name, size, point, axis):
    seen = look(timm.create_model(name).eval(), (3, size, size))
    assert seen.axes[point] == axis


def test_channels_are_told_where_the_shape_cannot_tell():
    """Eight channels on an 8 by 8 map, first or last."""
    first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU())
    assert look(first, (3, 8, 8)).axes["1"] == 1

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(3, 8), nn.LayerNorm(8)

        def forward(self, x):
            x = self.norm(self.linear(x.permute(0, 2, 3, 1)))
            return F.relu(x + 1).permute(0, 3, 1, 2)

    seen = look(Last(), (3, 8, 8))
    assert (seen.axes["norm"], seen.axes[""]) == (3, 1)


def test_calls_and_order_are_recorded():
    relu = nn.ReLU()
    seen = look(nn.Sequential(nn.Conv2d(1, 1, 1), relu, nn.Conv2d(1, 1, 1), relu, nn.Conv2d(1, 1, 2)), (1, 2, 2))
    assert list(seen.activations) == ["1:input", "1#1:input"]
    assert [p for p in seen.points if not p.endswith(":input")] == ["0", "1", "2", "1#1", "4", ""]


def test_hooks_are_gone_even_after_an_exception():
    model = plain_cnn()
    with pytest.raises(RuntimeError):
        look(model, (3, 4, 4))
    look(model, (1, 4, 4))
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())
