"""MTL-Swin-Unet: one Swin Transformer that classifies, segments and reconstructs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from attribguard.errors import ModelError, RangeError, check_choice
from attribguard.guard import Guard
from attribguard.heads import Head, ReconstructionHead, SegmentationHead
from attribguard.heads.swin_decoder import SwinDecoder, find_swin
from attribguard.models.swin import swin_backbone
from attribguard.models.swin_unet_keys import LoadReport, Part, load_into
from attribguard.wrapping import wrap

__all__ = ["Task", "load_swin_unet_state_dict", "mtl_swin_unet"]

Task = Literal["cls", "seg", "rec"]
TASKS: tuple[Task, ...] = ("cls", "seg", "rec")


_SIZES: dict[str, dict[str, Any]] = {
    "default": {"embed_dim": 96, "depths": (2, 2, 2, 2), "num_heads": (3, 6, 12, 24)},
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
}


def mtl_swin_unet(
    size: Literal["default", "tiny", "base"] = "default",
    *,
    num_classes: int = 2,
    seg_classes: int = 2,
    in_chans: int = 3,
    img_size: int | tuple[int, int] = 224,
    embed_dim: int | None = None,
    depths: Sequence[int] | None = None,
    num_heads: Sequence[int] | None = None,
    window_size: int = 7,
    tasks: Sequence[Task] = TASKS,
    pretrained: bool = False,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    drop_path: float = 0.2,
    mirror: bool = True,
    **wrap_options: Any,
) -> Guard:
    """A guard over a timm Swin Transformer, with a Swin-Unet decoder for each of segmentation and reconstruction.

    Source: Hirata and Okita, "Brain Hematoma Marker Recognition Using Multitask Learning", Sections 3 and 4.3: the
    total loss is 0.3 cls + 0.4 seg + 0.4 rec, and a task left out is dropped without renormalising the others. With
    ``tasks=("seg",)`` this is Swin-Unet (Cao et al. 2021), trained by ``guard(x, None, segmentation=...)``; with
    ``("cls",)`` it is the Swin Transformer alone. ``guard(x)`` gives the class logits, or the first task's prediction
    without classification, and runs no decoder that nobody asked for.

    Departures: the losses are per sample, those of the published trainer over the batch
    (:class:`attribguard.SegmentationHead` says how to have these); images of one channel have a patch embedding of one
    channel, where the published code repeats them to three.

    Args:
        size: the third stage's depth and the width: ``"default"`` 2 and 96, ``"tiny"`` 6 and 96, ``"base"`` 18 and 128.
        num_classes: of the classification, 1 or more.
        seg_classes: of the segmentation, the background included.
        in_chans: channels of the images.
        img_size: height and width of the images in pixels, divisible by 32 where there is a decoder.
        embed_dim: the first stage's width, in place of the size's.
        depths: the number of blocks a stage, in place of the size's.
        num_heads: of the attention, a stage, in place of the size's.
        window_size: of the attention, in patches.
        tasks: which of ``"cls"``, ``"seg"`` and ``"rec"`` there are, in the order of the predictions.
        pretrained: whether the encoder starts from timm's ImageNet weights, without the blocks beyond its own depth.
        pretrained_cfg_overlay: passed on to timm, for instance ``{"file": "weights.safetensors"}``.
        drop_path: the highest rate of stochastic depth; it rises linearly over the encoder, and a decoder's stage has
            the rates of the stage that it mirrors.
        mirror: whether pretrained blocks are copied into the decoders' mirrored stages too.
        **wrap_options: for :func:`attribguard.wrap`: penalties, criterion, criterion_weight, weighting, further heads.

    Returns:
        The guard; its heads are ``"segmentation"`` and ``"reconstruction"``.

    Raises:
        RangeError: if the size or a task is unknown, there is no task, or an argument is out of its range.
        ShapeError: if the images' sides are not divisible as they need to be.
        ModelError: if the pretrained network has fewer blocks, or other heads.

    Example:
        >>> import torch
        >>> guard = mtl_swin_unet(img_size=64, window_size=4, embed_dim=24)
        >>> out = guard.predict(torch.rand(1, 3, 64, 64))
        >>> out.logits.shape, out.predictions["segmentation"].shape
        (torch.Size([1, 2]), torch.Size([1, 2, 64, 64]))
    """
    check_choice("size", size, tuple(_SIZES))
    if not tasks or len(set(tasks)) < len(tasks):
        raise RangeError(got=f"tasks={tuple(tasks)!r}", needed="one or more, each once", fix=f"choose among {TASKS}")
    for task in tasks:
        check_choice("task", task, TASKS)
    given = {"embed_dim": embed_dim, "depths": depths, "num_heads": num_heads}
    encoder: Any = swin_backbone(
        num_classes if "cls" in tasks else 0,
        **(_SIZES[size] | {name: value for name, value in given.items() if value is not None}),
        window_size=window_size,
        img_size=img_size,
        in_chans=in_chans,
        drop_path=drop_path,
        pretrained=pretrained,
        pretrained_cfg_overlay=None if pretrained_cfg_overlay is None else dict(pretrained_cfg_overlay),
    )
    heads: dict[Task, Head] = {
        "seg": SegmentationHead(seg_classes, weight=0.4, decoder="swin"),
        "rec": ReconstructionHead(weight=0.4, decoder="swin"),
    }
    options: dict[str, Any] = {"criterion_weight": 0.3, "example_input": (in_chans, *encoder.patch_embed.img_size)}
    if "cls" not in tasks:
        options["criterion"] = "none"
    options |= wrap_options
    options["heads"] = [*(heads[task] for task in tasks if task != "cls"), *wrap_options.get("heads", ())]
    guard = wrap(encoder, **options)
    if pretrained and mirror:
        for head in heads.values():
            if isinstance(head.decoder, SwinDecoder):
                head.decoder.mirror_(encoder)
    return guard


def load_swin_unet_state_dict(
    guard: Guard, state_dict: Mapping[str, Any], decoder: str = "segmentation", *, skip: Collection[Part] = ()
) -> LoadReport:
    """Load a published Swin-Unet or Swin Transformer, by its own keys, into a guard over a timm Swin Transformer.

    All or nothing: where anything does not fit, nothing is changed.

    Args:
        guard: such as :func:`mtl_swin_unet` makes.
        state_dict: the checkpoint's tensors by the published code's keys, as
            :func:`attribguard.models.read_checkpoint` reads them from a file.
        decoder: the head whose decoder takes the checkpoint's; the encoder and ``head.*`` go into the model.
        skip: the parts, of ``"encoder"``, ``"decoder"`` and ``"classifier"``, to leave as they are although the
            checkpoint has them: ``("classifier",)`` for one of other classes.

    Returns:
        What was loaded, what stayed as it was, and what of the checkpoint was dropped on purpose.

    Raises:
        RangeError: if there is no such head, or a part to skip is unknown.
        ModelError: if the guard holds no timm Swin Transformer, or the head's decoder is no Swin-Unet's.
        ShapeError: if the checkpoint is of another size; it names the keys with both shapes.
        DataError: if the checkpoint has keys without a place, or lacks some of a part; it names them.
    """
    _, encoder = find_swin(guard.model)
    reading: Any = None
    if guard.heads:
        check_choice("decoder", decoder, tuple(guard.heads))
        reading = guard.heads[decoder].decoder
        if not isinstance(reading, SwinDecoder):
            raise ModelError(
                got=f"head {decoder!r} with a {type(reading).__name__}", needed="a SwinDecoder", fix="decoder='swin'"
            )
    return load_into(encoder, reading, state_dict, skip=skip)
