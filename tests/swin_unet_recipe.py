"""The networks, weights and inputs behind `golden/swin_unet_*.npz`, made again from their recipe with numpy alone.

Keys are those of the published Swin-Unet code. `SIZES` also holds the published "tiny" and "base".
"""

import math
import zlib
from functools import cache
from pathlib import Path

import numpy as np
import torch
from timm.models.swin_transformer import SwinTransformer
from torch.overrides import TorchFunctionMode

HEADS = (3, 6, 12, 24)
SIZES = {
    "small": {"img_size": 64, "window_size": 4, "embed_dim": 24, "depths": (2, 2, 2, 2), "num_heads": HEADS},
    "default": {"img_size": 224, "window_size": 7, "embed_dim": 96, "depths": (2, 2, 2, 2), "num_heads": HEADS},
    "tiny": {"img_size": 224, "window_size": 7, "embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": HEADS},
    "base": {"img_size": 224, "window_size": 7, "embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
}
ENCODER = ("patch_embed.", "layers.", "norm.")


def swin(name, **options):
    """The encoder with its classifier, in eval mode and with random weights."""
    return SwinTransformer(num_classes=2, drop_path_rate=0.2, **{**SIZES[name], **options}).eval()


class _EmptyOnMeta(TorchFunctionMode):
    """Not `torch.device("meta")`: timm 1.0.15 computes its drop-path rates with tensors, and reads them."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        return function(*args, **(kwargs or {}) | ({"device": "meta"} if function is torch.empty else {}))


def without_memory(build):
    """What `build` makes, its parameters without values on the meta device."""
    with _EmptyOnMeta():
        return build().to("meta")


@cache
def golden(name):
    """The arrays of "small" or "default", by name."""
    with np.load(Path(__file__).parent / "golden" / f"swin_unet_{name}.npz") as file:
        return {key: file[key] for key in file.files}


def weight(key, shape):
    """One tensor of the recipe, from its published key."""
    z = _draws(zlib.crc32(key.encode())).standard_normal(shape)
    if key.endswith("relative_position_bias_table"):
        z = 0.5 * z
    elif len(shape) == 1:
        z = 0.1 * z + key.endswith(".weight")
    else:
        z = z / math.sqrt(math.prod(shape[1:]))
    return torch.from_numpy(z.astype(np.float32))


def encoder_state(name):
    """The encoder's tensors."""
    return {key: weight(key, shape) for key, shape in _shapes(name).items() if key.startswith(ENCODER)}


def decoder_state(name, task="seg"):
    """The tensors of the segmentation's decoder (`seg`) or the reconstruction's (`rec`)."""
    shapes = {key: shape for key, shape in _shapes(name).items() if not key.startswith(ENCODER)}
    if task == "rec":
        shapes["output.weight"] = (3, *shapes["output.weight"][1:])
    prefix = {"seg": "", "rec": "rec/"}[task]
    return {key: weight(prefix + key, shape) for key, shape in shapes.items()}


def classifier_state(name):
    """The classifier's tensors."""
    shapes = {"head.weight": (2, 8 * SIZES[name]["embed_dim"]), "head.bias": (2,)}
    return {key: weight(key, shape) for key, shape in shapes.items()}


def buffers(name):
    """What the published code saves beside the parameters at size "default", with values that must not matter."""
    blocks = [key.removesuffix("attn.qkv.weight") for key in _shapes(name) if key.endswith("attn.qkv.weight")]
    shifted = [block for block in blocks if block.endswith(".1.") and not block.startswith("layers.3.")]
    indices = {f"{block}attn.relative_position_index": torch.full((49, 49), -1) for block in blocks}
    return indices | {f"{block}attn_mask": torch.full((4, 49, 49), torch.nan) for block in shifted}


def images(name):
    """(N, 3, S, S), standard normal."""
    n, size = {"small": 2, "default": 1}[name], SIZES[name]["img_size"]
    return torch.from_numpy(_draws(0).standard_normal((n, 3, size, size)).astype(np.float32))


def upstream(shape):
    """What the segmentation is multiplied with and summed, for the gradients."""
    return torch.from_numpy(_draws(9).standard_normal(tuple(shape)).astype(np.float32))


def masks(name):
    """(N, S, S), classes 0 and 1."""
    n, size = images(name).shape[0], SIZES[name]["img_size"]
    return torch.from_numpy(_draws(3).uniform(size=(n, size, size)) < 0.2).long()


def labels(name):
    """(N,), classes 0 and 1."""
    return torch.arange(images(name).shape[0]) % 2


def stored(name, array):
    """The part of a complete array that the file keeps: all of "small", a grid of "default"."""
    array = array.detach().double().numpy()
    if name == "small" or array.ndim != 4:
        return array
    if array.shape[1] <= 3:  # images, channels first
        return array[:, :, ::7, ::7]
    _, height, width, channels = array.shape
    return array[:, :: max(height // 7, 1), :: max(width // 7, 1), :: max(channels // 48, 1)]


def parameters(module):
    """How many numbers a module learns."""
    return sum(parameter.numel() for parameter in module.parameters())


def _draws(seed):
    return np.random.RandomState(seed)


def _shapes(name):
    keys, shapes = (golden(name)[each].tolist() for each in ("param_keys", "param_shapes"))
    return {key: tuple(map(int, shape.split("x"))) for key, shape in zip(keys, shapes, strict=True)}
