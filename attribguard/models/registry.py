"""Makes the networks known to timm, under their names behind ``attribguard_``."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from typing import Any

from timm.models import register_model
from torch import nn

from attribguard.errors import RangeError
from attribguard.models.actdiff_cnn import actdiff_cnn
from attribguard.models.actdiff_resnet18 import actdiff_resnet18
from attribguard.models.joint_cnn import joint_cnn
from attribguard.models.joint_swin import joint_swin
from attribguard.models.t_densenet import t_densenet
from attribguard.models.unet import unet

__all__: list[str] = []  # timm enters the names here


def _entry(build: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    """The function that ``timm.create_model`` calls, with every option about pretrained weights always there."""
    has_weights = "pretrained" in inspect.signature(build).parameters

    def entry(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: Any = None,
        cache_dir: Any = None,
        **options: Any,
    ) -> nn.Module:
        weights = {
            "pretrained": pretrained,
            "pretrained_cfg": pretrained_cfg,
            "pretrained_cfg_overlay": pretrained_cfg_overlay,
            "cache_dir": cache_dir,
        }
        if has_weights:
            return build(**weights, **options)
        if pretrained or pretrained_cfg or pretrained_cfg_overlay:
            raise RangeError(
                got=f"pretrained weights asked of {entry.__name__}, of which there are none",
                needed="pretrained=False and no configuration of weights",
                fix="load a checkpoint of your own: checkpoint_path=...",
            )
        return build(**options)

    entry.__name__ = entry.__qualname__ = f"attribguard_{build.__name__}"
    entry.__doc__ = f"Build :func:`attribguard.models.{build.__name__}` for ``timm.create_model``."
    return entry


for _build in (actdiff_cnn, actdiff_resnet18, joint_cnn, joint_swin, t_densenet, unet):
    with warnings.catch_warnings():
        # A module that is loaded again registers its networks again.
        warnings.filterwarnings("ignore", message="Overwriting attribguard_")
        _registered = register_model(_entry(_build))
    globals()[_registered.__name__] = _registered
