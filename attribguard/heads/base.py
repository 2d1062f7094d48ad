"""What a head is: a decoder on the guarded network's features, and a loss on what it draws."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribguard.batch import Batch
from attribguard.corruption import Corruption
from attribguard.errors import LayerError, ModelError, ShapeError, TypeMismatchError, check_choice
from attribguard.heads.swin_decoder import SwinDecoder, find_swin
from attribguard.heads.unet_decoder import UNetDecoder
from attribguard.modes import undisturbed
from attribguard.network import floating_like
from attribguard.pyramid import Level, find_pyramid, named_pyramid
from attribguard.survey import Survey
from attribguard.term import Term

__all__ = ["DecoderChoice", "Head", "switch_checkpointing"]

DecoderChoice = Literal["auto", "unet", "plain", "swin"] | nn.Module
_DECODERS = ("auto", "unet", "plain", "swin")


class Head(Term):
    """An auxiliary task with a decoder of its own, trained together with the classifier.

    Subclass it and write :meth:`out_channels` and :meth:`loss`. ``wrap`` attaches a head: it picks the feature maps
    from the dry run and builds the decoder, so that every parameter exists when ``wrap`` returns.

    Args:
        weight: 0 or more; may be changed between steps.
        decoder: ``"auto"`` and ``"unet"``: U-Net style over the last map at each scale; ``"plain"``: upsampling from
            the coarsest alone; ``"swin"``: Swin-Unet's, the mirror image of a timm Swin Transformer; or a module that
            is called with the list of maps, each (N, C, h, w), the finest first, and gives (N, out_channels, h, w).
        layers: names or patterns of modules whose maps the decoder reads instead of those that were found.
        name: the term's and the prediction's name.

    Attributes:
        decoder: the decoder; ``None`` before the head is attached.
        points: the places that it reads, the finest first.

    Raises:
        RangeError: if the weight is negative or not finite, or the decoder unknown.
        TypeMismatchError: if an argument is of the wrong kind.
    """

    needs_corrupted: bool = False
    corruption: Corruption | None = None

    def __init__(
        self, weight: float, *, decoder: DecoderChoice = "auto", layers: str | Sequence[str] = (), name: str
    ) -> None:
        super().__init__(weight, name)
        # It becomes a key of an nn.ModuleDict.
        if not isinstance(name, str) or not name or "." in name or hasattr(nn.ModuleDict(), name):
            raise TypeMismatchError(got=f"name={name!r}", needed="a module's name", fix="choose another, without dots")
        if not isinstance(decoder, nn.Module):
            check_choice("decoder", decoder, _DECODERS)
        named = (layers,) if isinstance(layers, str) else layers
        if not isinstance(named, Sequence) or not all(isinstance(layer, str) for layer in named):
            raise TypeMismatchError(got=f"layers={layers!r}", needed="names of modules", fix="pass strings")
        self.layers = tuple(named)
        # In a tuple: a module that is no part of this one before it is attached.
        self._choice = (decoder,)
        self.decoder: nn.Module | None = None
        self.points: tuple[str, ...] = ()

    @abstractmethod
    def out_channels(self, image_channels: int) -> int:
        """How many channels the prediction has.

        Args:
            image_channels: of the images.
        """

    @abstractmethod
    def loss(self, prediction: Tensor, batch: Batch, corrupted: Tensor | None) -> Tensor:
        """The loss of each sample, unweighted.

        Args:
            prediction: (N, K, H, W), at least float32.
            batch: the checked batch.
            corrupted: (N, C, H, W), the images with their outside corrupted, where the head says ``needs_corrupted``:
                by its ``corruption``, or the one that the guard's penalties use.

        Returns:
            (N,).
        """

    def rows(self, batch: Batch) -> Tensor:
        """Which samples count: (N,) bool; all of them by default."""
        return torch.ones_like(batch.annotated)

    def check(self, batch: Batch, *, values: bool) -> None:
        """Refuse a batch that the loss cannot take, before anything is computed.

        Args:
            batch: the checked batch.
            values: whether to look at the values, for which an accelerator has to be waited for.
        """

    def attach(self, model: nn.Module, survey: Survey) -> None:
        """Choose the maps and build the decoder; ``wrap`` calls this.

        Args:
            model: the network.
            survey: of that network.

        Raises:
            LayerError: if the network has no map to draw from, or a layer is none.
            ModelError: if ``"swin"`` is asked of another network.
            ShapeError: if a decoder of one's own gives another shape than it should.
        """
        (choice,) = self._choice
        swin = find_swin(model) if choice == "swin" else None
        layers = self.layers or (() if swin is None else SwinDecoder.places(*swin))
        levels = named_pyramid(layers, survey) if layers else find_pyramid(survey)
        if not levels:
            raise LayerError(
                got=f"a network without a feature map that head {self.name!r} could draw from",
                needed="a layer with spatial extent",
                fix="name it: layers=...",
            )
        outputs = self.out_channels(survey.shapes[":input"][1])
        like = floating_like(model)
        # Parameters that are made in inference mode could never be trained.
        with torch.inference_mode(False):
            if isinstance(choice, nn.Module):
                _try(choice, levels, outputs)
                decoder = choice
            elif swin is not None:
                decoder = SwinDecoder(swin[1], outputs)
            else:
                levels = levels[-1:] if choice == "plain" else levels
                decoder = UNetDecoder(levels, outputs)
            self.decoder = decoder.to(like.device, like.dtype)
        self.points = tuple(level.point for level in levels)

    def detach(self) -> None:
        """Forget the decoder; ``wrap`` calls this where it fails after all."""
        self.decoder, self.points = None, ()

    def name_blocks(self, model: nn.Module) -> None:
        """Read from the last block of a sequence, not from the sequence: checkpointing calls its blocks one by one."""
        points = list(self.points)
        for i, point in enumerate(points):
            # What enters a module, or comes of a later call of it, has no such name inside.
            inner: Any = model if {":", "#"} & set(point) else model.get_submodule(point)
            while inner is not model and type(inner).forward is nn.Sequential.forward and len(inner):
                name, inner = list(inner.named_children())[-1]
                points[i] = f"{points[i]}.{name}"
        self.points = tuple(points)

    def forward(self, maps: list[Tensor], size: tuple[int, int]) -> Tensor:
        """Decode.

        Args:
            maps: (N, C, h, w) each, the finest first.
            size: (H, W) of the images.

        Returns:
            (N, K, H, W).
        """
        if self.decoder is None:
            raise ModelError(got=f"head {self.name!r} on its own", needed="a guard", fix="pass it to wrap(heads=[...])")
        drawn: Tensor = self.decoder(self._own(maps))
        if drawn.shape[-2:] != size:
            drawn = F.interpolate(drawn, size=size, mode="bilinear", align_corners=False)
        return drawn

    def _own(self, maps: list[Tensor]) -> list[Tensor]:
        """The maps in the decoder's type, which autocast takes care of by itself, and safe from what it may do."""
        if not torch.is_autocast_enabled(maps[0].device.type):
            # Not by `next`: a compiled graph of torch 2.6 cannot follow its default.
            own = [p for p in self.parameters() if p.is_floating_point()]
            maps = [x.to(own[0].dtype) for x in maps] if own else maps
        # A decoder of the user's may work in place on what others read too.
        return [x.clone() for x in maps] if isinstance(self._choice[0], nn.Module) else maps


def switch_checkpointing(model: nn.Module, heads: Sequence[Head], enable: bool) -> None:
    """Switch activation checkpointing in the decoders, and in the model where it offers this, as timm's do.

    Args:
        model: the network.
        heads: its heads.
        enable: whether to.
    """
    for part in (model, *(head.decoder for head in heads)):
        switch = getattr(part, "set_grad_checkpointing", None)
        if switch is not None:
            with contextlib.suppress(AssertionError):  # timm's way of saying that a model does not offer it
                switch(enable)
    for head in heads:
        head.name_blocks(model)


def _try(decoder: nn.Module, levels: Sequence[Level], outputs: int) -> None:
    """Refuse a decoder that does not take these maps, or gives something else."""
    like = floating_like(decoder)
    maps = [torch.zeros(2, level.channels, *level.size, device=like.device, dtype=like.dtype) for level in levels]
    try:
        with undisturbed(decoder, like.device):
            drawn = decoder(maps)
    except Exception as error:
        shapes = [tuple(x.shape) for x in maps]
        raise ShapeError(
            got=f"a decoder that refuses maps of {shapes}: {type(error).__name__} {str(error).partition(chr(10))[0]}",
            needed="one that is called with the list of these",
            fix="build it for these channels, or name other layers",
        ) from error
    if not isinstance(drawn, Tensor) or drawn.dim() != 4 or drawn.shape[:2] != (2, outputs):
        given = tuple(drawn.shape) if isinstance(drawn, Tensor) else type(drawn).__name__
        raise ShapeError(
            got=f"a decoder that gives {given} for 2 images",
            needed=f"(2, {outputs}, h, w)",
            fix="change its number of outputs",
        )
