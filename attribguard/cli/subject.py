"""What a command audits: a network by its name, and its weights."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import nn
from torchvision.transforms import Normalize

from attribguard.errors import DataError, ModelError
from attribguard.plain_data import check_regular
from attribguard.weights_file import load_plain

__all__ = ["load_model"]

_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")  # under which trainers keep the weights


def load_model(name: str, checkpoint: Path | None, classes: int, channels: int) -> nn.Module:
    """Build a network and load its weights.

    Args:
        name: ``package.module:function``, where the function takes nothing and gives a network, looked for in the
            current folder too; or a timm model, which gets images standardised as its own configuration says. Without a
            checkpoint a timm model has its pretrained weights, which are downloaded.
        checkpoint: of weights alone: a state dict, or a dict with one as trainers write it,
            of which averaged weights are preferred; or a file of safetensors.
        classes: of the images.
        channels: of the images.

    Returns:
        The network in eval mode.

    Raises:
        ModelError: if there is no such network, or the function fails.
        DataError: if the checkpoint cannot be read, holds more than weights, or is another network's.
    """
    model = _call(name) if ":" in name else _create(name, checkpoint is None, classes, channels)
    if checkpoint is not None:
        _load(model[1] if isinstance(model, _Standardised) else model, checkpoint)
    return model.eval()


class _Standardised(nn.Sequential):
    """A timm model behind the standardisation of its configuration."""


def _call(name: str) -> nn.Module:
    place, _, function = name.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        model = getattr(importlib.import_module(place), function)()
    except Exception as error:  # anything may go wrong in a user's function
        text = " ".join(str(error).split())
        raise ModelError(
            got=f"{name}, which raised {type(error).__name__}: {text}",
            needed="package.module:function, a function without arguments that gives a network",
            fix="call it in Python to see more",
        ) from None
    if not isinstance(model, nn.Module):
        raise ModelError(
            got=f"{name}, which gave a {type(model).__name__}", needed="a torch.nn.Module", fix="return it"
        )
    return model


def _create(name: str, pretrained: bool, classes: int, channels: int) -> nn.Module:
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name}*")[:3])
        raise ModelError(
            got=f"{name!r}, which is neither package.module:function nor a timm model",
            needed="one of these" + (f", such as {near}" if near else ""),
            fix="timm.list_models() names them",
        )
    options: dict[str, Any] = {} if pretrained else {"num_classes": classes}
    try:
        model: Any = timm.create_model(name, pretrained=pretrained, in_chans=channels, **options)
    except Exception as error:  # no network, no weights of that name, or an architecture of fixed channels
        text = " ".join(str(error).split())
        raise ModelError(
            got=f"{name}, which could not be built ({text})", needed="weights", fix="give --checkpoint"
        ) from None
    mean, std = (torch.tensor(model.pretrained_cfg[key]) for key in ("mean", "std"))
    if channels != len(mean):
        mean, std = mean.mean().expand(channels), std.mean().expand(channels)
    return _Standardised(Normalize(mean.tolist(), std.tolist()), model)


def _load(model: nn.Module, checkpoint: Path) -> None:
    try:
        weights = _read(checkpoint)
    except Exception as error:  # whatever a missing, damaged or hostile file makes of torch
        text = " ".join(str(error).split())[:200]
        raise DataError(
            got=f"{checkpoint}, which cannot be loaded as weights alone ({text})",
            needed="a state dict; anything else may run code when it is loaded, and is not loaded",
            fix="save model.state_dict()",
        ) from None
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError, AttributeError) as error:
        text = " ".join(str(error).split())[:300]
        raise DataError(
            got=f"{checkpoint}, which is not this network's ({text})", needed="its state dict", fix="check MODEL"
        ) from None


def _read(checkpoint: Path) -> Any:
    check_regular(checkpoint)
    if checkpoint.suffix == ".safetensors":
        return load_file(checkpoint)
    loaded = load_plain(checkpoint)
    inner = next((loaded[key] for key in _KEYS if isinstance(loaded.get(key), Mapping)), loaded)
    return clean_state_dict(inner)  # of the prefixes that wrappers add
