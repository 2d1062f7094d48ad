"""Checkpoints of the published Swin Transformer and Swin-Unet code, and where their tensors go."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from attribguard.errors import DataError, ShapeError, TypeMismatchError, check_choice
from attribguard.weights_file import load_plain

__all__ = ["PARTS", "LoadReport", "Part", "load_into", "read_checkpoint", "translate", "unwrap"]

Part = Literal["encoder", "decoder", "classifier"]
PARTS: tuple[Part, ...] = ("encoder", "decoder", "classifier")

_SHOWN = 8  # of a list in an error's text
_CONTAINERS = ("model", "state_dict")
# DataParallel and its like, torch.compile, and the module that the Swin-Unet trainer saves.
_PREFIXES = ("module.", "_orig_mod.", "swin_unet.")
# timm computes these itself.
_BUFFERS = re.compile(r".*\.(relative_position_index|attn_mask)")
# A key's beginning, the part, the name there, and what is added to the number in it: timm merges patches at the start
# of a stage, the published code at the end of the one before; of the published decoder's layers the first, 0, has
# neither blocks nor a concatenation.
_RULES: tuple[tuple[str, Part, str, int], ...] = (
    (r"patch_embed\.(?=(?:proj|norm)\.)", "encoder", "patch_embed.", 0),
    (r"layers\.(\d+)\.(?=blocks\.)", "encoder", "layers.{}.", 0),
    (r"layers\.(\d+)\.(?=downsample\.)", "encoder", "layers.{}.", 1),
    (r"norm\.", "encoder", "norm.", 0),
    (r"head\.(?=(?:weight|bias)$)", "classifier", "head.fc.", 0),
    (r"layers_up\.(0)\.(?=(?:expand|norm)\.)", "decoder", "up.{}.", 0),
    (r"layers_up\.([1-9]\d*)\.upsample\.", "decoder", "up.{}.", 0),
    (r"layers_up\.([1-9]\d*)\.(?=blocks\.)", "decoder", "stages.{}.", -1),
    (r"concat_back_dim\.([1-9]\d*)\.", "decoder", "fuse.{}.", -1),
    (r"norm_up\.", "decoder", "norm.", 0),
    (r"up\.(?=(?:expand|norm)\.)", "decoder", "final.", 0),
    (r"output\.", "decoder", "out.", 0),
)


@dataclass(frozen=True)
class LoadReport:
    """What became of the tensors, by name; ours begin with ``encoder.`` or ``decoder.``.

    Attributes:
        loaded: ours that were set from the checkpoint.
        not_loaded: ours that stayed as they were: of parts that the checkpoint lacks, or that were skipped.
        ignored: the checkpoint's that were dropped on purpose: buffers that timm computes itself, and skipped parts.
    """

    loaded: tuple[str, ...]
    not_loaded: tuple[str, ...]
    ignored: tuple[str, ...]


def translate(keys: Iterable[str]) -> dict[str, tuple[Part, str]]:
    """Find the place of each tensor of a published checkpoint.

    Args:
        keys: as :func:`unwrap` leaves them.

    Returns:
        For each key the part and the name there, in timm's Swin Transformer (``"encoder"``, ``"classifier"``) or in
        :class:`attribguard.heads.swin_decoder.SwinDecoder`. Buffers that timm computes itself are left out.

    Raises:
        DataError: if there are keys that neither a Swin Transformer nor a Swin-Unet has; it names them.

    Example:
        >>> translate(["layers.0.downsample.norm.bias", "layers.0.blocks.1.attn_mask", "concat_back_dim.1.bias"])
        {'layers.0.downsample.norm.bias': ('encoder', 'layers.1.downsample.norm.bias'),
         'concat_back_dim.1.bias': ('decoder', 'fuse.0.bias')}
    """
    found = {key: _place(key) for key in keys if not _BUFFERS.fullmatch(key)}
    places = {key: place for key, place in found.items() if place is not None}
    if len(places) < len(found):
        raise DataError(
            got=f"a checkpoint with the unknown keys {_some([key for key in found if key not in places])}",
            needed="those of the published Swin Transformer or Swin-Unet",
            fix="load timm's own checkpoints with timm; Swin V2 and absolute position embeddings have no place here",
        )
    return places


def _place(key: str) -> tuple[Part, str] | None:
    for pattern, part, ours, offset in _RULES:
        if match := re.match(pattern, key):
            return part, ours.format(*(int(number) + offset for number in match.groups())) + key[match.end() :]
    return None


def unwrap(checkpoint: Any) -> dict[str, Tensor]:
    """Take the tensors out of what training scripts save around them.

    Args:
        checkpoint: a state dict; or a dictionary that holds one as ``"model"`` or ``"state_dict"``. All its keys may
            begin with ``module.``, ``_orig_mod.`` or ``swin_unet.``, or several of these.

    Returns:
        The tensors by their keys without those beginnings; a new dictionary, the same tensors.

    Raises:
        TypeMismatchError: if it is no dictionary.
        DataError: if it holds no tensors, or other things between them.

    Example:
        >>> import torch
        >>> unwrap({"epoch": 3, "model": {"module.norm.bias": torch.zeros(1)}})
        {'norm.bias': tensor([0.])}
    """
    if not isinstance(checkpoint, Mapping):
        kind = type(checkpoint).__name__
        raise TypeMismatchError(got=f"a {kind}", needed="a state dict", fix="pass what read_checkpoint returns")
    for name in _CONTAINERS:
        if isinstance(checkpoint.get(name), Mapping):
            return unwrap(checkpoint[name])
    others = [str(key) for key, value in checkpoint.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others or not checkpoint:
        got = f"a dictionary with {_some(others)} beside or in place of tensors" if others else "an empty dictionary"
        raise DataError(got=got, needed="tensors by their names", fix="pass the part of it that is the state dict")
    tensors = dict(checkpoint)
    while prefix := next((each for each in _PREFIXES if all(key.startswith(each) for key in tensors)), ""):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a checkpoint's tensors to the CPU, and run nothing that the file brings along.

    Args:
        path: a file that ``torch.save`` wrote.

    Returns:
        Its tensors, without what training scripts save around them.

    Raises:
        DataError: if it is missing, damaged, or holds anything but tensors and plain containers.
    """
    path = Path(path)
    try:
        content = load_plain(path)
    except pickle.UnpicklingError as error:
        raise DataError(
            got=f"{path}, which holds more than tensors, or is no checkpoint",
            needed="tensors in plain containers: to read anything else is to run code from the file",
            fix="where you trust its origin, save its state dict alone and read that",
        ) from error
    except Exception as error:  # a damaged file raises whatever the unpickler stumbles over
        words = getattr(error, "strerror", None) or type(error).__name__
        got = f"{path}, which cannot be read ({words})"
        raise DataError(got=got, needed="a file of torch.save", fix="check the path, or fetch it again") from error
    return unwrap(content)


def load_into(
    encoder: nn.Module, decoder: nn.Module | None, checkpoint: Mapping[str, Any], *, skip: Collection[Part] = ()
) -> LoadReport:
    """Load a published Swin Transformer or Swin-Unet into timm's Swin Transformer and a decoder that mirrors it.

    All or nothing: each part that the checkpoint has is loaded whole, or nothing is changed. A part that it lacks stays
    as it is: the decoder for a classifier's checkpoint, the classifier for Swin-Unet's.

    Args:
        encoder: a timm Swin Transformer, its classifier included.
        decoder: a :class:`attribguard.heads.swin_decoder.SwinDecoder`, for segmentation or for reconstruction, with as
            many outputs as the checkpoint's; or ``None``.
        checkpoint: as :func:`unwrap` takes it.
        skip: the parts, of ``"encoder"``, ``"decoder"`` and ``"classifier"``, to leave as they are although the
            checkpoint has them, such as the classifier of other classes.

    Returns:
        What was loaded, what stayed, and what was dropped.

    Raises:
        RangeError: if a part to skip is unknown.
        TypeMismatchError: if the checkpoint is no dictionary.
        ShapeError: if it is of another size; it names the keys with both shapes.
        DataError: if it has keys without a place, or lacks keys of a part that it has; it names them.
    """
    for part in skip:
        check_choice("skip", part, PARTS)
    tensors = unwrap(checkpoint)
    ours: dict[Part, dict[str, Tensor]] = {part: {} for part in PARTS}
    for name, value in encoder.state_dict().items():
        ours["classifier" if name.startswith("head.") else "encoder"][name] = value
    if decoder is not None:
        ours["decoder"].update(decoder.state_dict())
    theirs: dict[Part, dict[str, str]] = {part: {} for part in PARTS}
    for key, (part, name) in translate(tensors).items():
        if part not in skip:
            theirs[part][name] = key
    _check_fit(ours, theirs, tensors)
    for part in PARTS:
        module = decoder if part == "decoder" else encoder
        if module is not None:
            module.load_state_dict({name: tensors[key] for name, key in theirs[part].items()}, strict=False)
    used = {key for part in PARTS for key in theirs[part].values()}
    return LoadReport(
        loaded=tuple(_named(part, name) for part in PARTS for name in ours[part] if name in theirs[part]),
        not_loaded=tuple(_named(part, name) for part in PARTS for name in ours[part] if name not in theirs[part]),
        ignored=tuple(key for key in tensors if key not in used),
    )


def _check_fit(
    ours: dict[Part, dict[str, Tensor]], theirs: dict[Part, dict[str, str]], tensors: dict[str, Tensor]
) -> None:
    extra = [key for part in PARTS for name, key in theirs[part].items() if name not in ours[part]]
    missing = [_named(part, name) for part in PARTS if theirs[part] for name in ours[part] if name not in theirs[part]]
    if extra or missing:
        raise DataError(
            got=f"a checkpoint with {_some(extra)} that the network lacks, and without {_some(missing)}",
            needed="all of a part or nothing of it",
            fix="build the network with the checkpoint's depths, and a decoder if it has one; skip leaves parts out",
        )
    places = [(key, ours[part][name]) for part in PARTS for name, key in theirs[part].items()]
    sizes = [(key, tuple(tensors[key].shape), tuple(own.shape)) for key, own in places]
    differing = [f"{key} {size} for {own}" for key, size, own in sizes if size != own]
    if differing:
        raise ShapeError(
            got=f"a checkpoint of another size: {_some(differing)}",
            needed="the shapes of the network",
            fix="build the network with the checkpoint's sizes; skip=('classifier',) leaves other classes out",
        )


def _named(part: Part, name: str) -> str:
    return f"{'decoder' if part == 'decoder' else 'encoder'}.{name}"


def _some(items: list[str]) -> str:
    shown = ", ".join(items[:_SHOWN]) or "nothing"
    return shown if len(items) <= _SHOWN else f"{shown} and {len(items) - _SHOWN} more"
