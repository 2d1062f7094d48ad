"""Run a network many times under the same dropout masks, with what comes before the first dropout run once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribguard.network import Network
from attribguard.probes.patch_swap.changed_windows import Box, ChangedWindows
from attribguard.probes.patch_swap.dropout_calls import Dropouts
from attribguard.probes.patch_swap.dropout_masks import Masked, Masks, factors
from attribguard.probes.patch_swap.swaps import Alike

__all__ = [
    "LinearPasses", "MappedPasses", "Passes", "RepeatedPasses", "choose_passes", "images_at_a_time", "plain_logits",
]  # fmt: skip

# Numbers that may stand in memory at a time: 256 MiB of float32.
_NUMBERS = 2**26
# So many images of one position are worth a pass of their own over the part in which they differ.
_ALIKE = 8


class Passes(Protocol):
    """A way to run all passes over a batch of images."""

    @property
    def numbers(self) -> int:
        """How many numbers stand in memory for each image."""

    def logits(self, images: Tensor, keeps: list[Tensor], alike: Sequence[Alike] = ()) -> Iterator[Tensor]:
        """Run them.

        Args:
            images: (B, C, H, W).
            keeps: the masks of T passes, as :meth:`Masks.keep` gives them.
            alike: which images differ in one patch from what; none, or all of them in their order.

        Yields:
            (t, B, K), some passes after the other.
        """


class RepeatedPasses:
    """One forward pass of the whole network after the other: what the other two are measured against.

    Args:
        network: the model.
        dropouts: its dropout.
    """

    numbers = 1

    def __init__(self, network: Network, dropouts: Dropouts) -> None:
        self._network, self._dropouts = network, dropouts

    def logits(self, images: Tensor, keeps: list[Tensor], alike: Sequence[Alike] = ()) -> Iterator[Tensor]:
        """As :class:`Passes` says."""
        for masks in zip(*keeps, strict=True):
            yield _run(self._network, self._dropouts, images, masks)[0][None]


class MappedPasses:
    """All passes at once by ``torch.vmap`` over the masks.

    What does not depend on a mask is not mapped and so runs once, wherever in the network it stands, shortcuts around
    the dropout included.

    Args:
        network: the model.
        dropouts: its dropout.
        passes: T.
    """

    def __init__(self, network: Network, dropouts: Dropouts, passes: int) -> None:
        self._network, self._dropouts = network, dropouts
        self.numbers = passes * max(torch.Size(call.shape).numel() for call in dropouts.live)

    def logits(self, images: Tensor, keeps: list[Tensor], alike: Sequence[Alike] = ()) -> Iterator[Tensor]:
        """As :class:`Passes` says."""
        yield torch.vmap(lambda *masks: _run(self._network, self._dropouts, images, masks)[0])(*keeps)


class LinearPasses:
    r"""All passes as one matrix product, where dropout is followed by the linear classifier alone.

    With :math:`h` what enters dropout, :math:`m_t` its mask divided by the share that is kept, and :math:`W` the
    classifier's matrix, :math:`z_{tk} = h \cdot (m_t \circ W_k) + b_k`: the masked matrices of all passes, one below
    the other, times :math:`h`. Where images differ from a source in one patch, only those features are computed and
    multiplied that it changes.

    Args:
        network: the model.
        dropouts: its dropout, one live call.
        classifier: what follows.
    """

    def __init__(self, network: Network, dropouts: Dropouts, classifier: nn.Linear) -> None:
        self._network, self._dropouts, self._classifier = network, dropouts, classifier
        self._windows = ChangedWindows(network, dropouts)
        self._known: tuple[Tensor, Tensor, Tensor] | None = None
        self._base: tuple[Tensor, Tensor] | None = None
        self._product: tuple[Tensor, Tensor, Tensor] | None = None
        self.numbers = classifier.in_features

    def logits(self, images: Tensor, keeps: list[Tensor], alike: Sequence[Alike] = ()) -> Iterator[Tensor]:
        """As :class:`Passes` says."""
        parts = self._parts(images, alike)
        weight = self._classifier.weight
        at_a_time = max(1, _NUMBERS // (weight.numel() + len(weight) * len(images)))
        for keep in keeps if len(keeps[0]) <= at_a_time else keeps[0].split(at_a_time):
            matrix, bias = self._masked(keep)
            logits = torch.cat([self._multiply(part, matrix) for part in parts])
            yield logits.unflatten(1, (-1, len(keep))).permute(2, 0, 1) + bias[:, None]

    def _masked(self, keep: Tensor) -> tuple[Tensor, Tensor]:
        """The classifier under each mask: (D, K * t) and (t, K)."""
        if self._known is None or self._known[0] is not keep:
            weight, bias = self._classifier.weight, self._classifier.bias
            whole = keep.expand(len(keep), *self._dropouts.live[0].shape).flatten(1)
            scale, shift = factors(self._dropouts.live[0], whole, weight.dtype)
            matrix = (scale.T.contiguous()[:, None] * weight.T[:, :, None]).flatten(1)
            self._known = keep, matrix, F.linear(shift, weight, bias)
        return self._known[1:]

    def _parts(self, images: Tensor, alike: Sequence[Alike]) -> list[_Part]:
        """What is to be multiplied."""
        windows = [self._windows.find(each.source, each.patch) if each.images >= _ALIKE else None for each in alike]
        if not any(windows):
            return [_Part(self._features(images))]
        parts = []
        groups = images.split([each.images for each in alike])
        for some, each, window in zip(groups, alike, windows, strict=True):
            if window is None:
                parts.append(_Part(self._features(some)))
            else:
                before = self._before(each.source)
                after = self._windows.maps(window.crop.of(some))
                parts.append(_Part(window.inner.of(after) - window.outer.of(before), (window.outer, before)))
        return parts

    def _features(self, images: Tensor) -> Tensor:
        return _run(self._network, self._dropouts, images, None)[1].flatten(1)

    def _before(self, source: Tensor) -> Tensor:
        """The maps of a source, kept until another one comes."""
        base = self._base
        if base is None or not torch.equal(base[0], source):
            base = self._base = source, self._windows.maps(source)
        return base[1]

    def _multiply(self, part: _Part, matrix: Tensor) -> Tensor:
        """(B, D) times (D, R)."""
        if part.changed is None:
            return part.values @ matrix
        place, before = part.changed
        product = self._product
        if product is None or product[0] is not before or product[1] is not matrix:
            product = self._product = before, matrix, before.flatten(1) @ matrix
        inside = place.of(matrix.T.unflatten(1, before.shape[1:])).permute(1, 2, 3, 0).flatten(0, 2)
        return torch.addmm(product[2], part.values.flatten(1), inside)


class _Part(NamedTuple):
    """Features of some images.

    Attributes:
        values: (B, D) all of them, or (B, C, h, w) by how much those at some place differ from a source's.
        changed: the place, and the source's maps, (1, C, H, W).
    """

    values: Tensor
    changed: tuple[Box, Tensor] | None = None


def choose_passes(network: Network, dropouts: Dropouts, masks: Masks, x: Tensor, passes: int) -> Passes:
    """Find the fastest way that gives, on two images and the first two masks, what repeated passes give.

    Args:
        network: the model, in eval mode.
        dropouts: its dropout.
        masks: of all passes.
        x: (N, C, H, W), N at least 1.
        passes: T.

    Returns:
        The way. Repeated passes cost T times the whole network; they remain where a network overwrites in place what
        its shortcuts carry around the dropout, or does something else that cannot be mapped.
    """
    pair = torch.cat([x[:1], x[-1:] * 0.5])
    keeps = [keep[:2] for keep in masks.keep(2)]
    repeated = RepeatedPasses(network, dropouts)
    expected = torch.cat(list(repeated.logits(pair.clone(), keeps)))
    ways: list[Passes] = [MappedPasses(network, dropouts, passes)]
    name = network.look(x).classifier
    classifier = None if name is None else network.model.get_submodule(name)
    if len(dropouts.live) == 1 and isinstance(classifier, nn.Linear) and not masks.independent:
        call = dropouts.live[0]
        if call.axis == 0 and torch.Size(call.shape).numel() == classifier.in_features:
            ways.insert(0, LinearPasses(network, dropouts, classifier))
    return next((way for way in ways if _gives(way, pair, keeps, expected)), repeated)


def images_at_a_time(way: Passes, images: Tensor) -> int:
    """How many images a batch may hold so that some 256 MiB hold what is made of them.

    Args:
        way: how the passes run.
        images: (N, C, H, W), for their size.
    """
    # Behind an image's first convolutions stand some 16 numbers for each of its own. More at a time fill a GPU; on a
    # CPU they only leave its cache.
    most = 128 if images.device.type == "cpu" else 512
    return min(max(1, _NUMBERS // (way.numbers + 16 * images[0].numel())), most)


def plain_logits(network: Network, dropouts: Dropouts, images: Tensor) -> Tensor:
    """One pass in which nothing is dropped.

    Args:
        network: the model, in eval mode.
        dropouts: its dropout.
        images: (B, C, H, W).

    Returns:
        (B, K).
    """
    return _run(network, dropouts, images, None)[0]


def _run(
    network: Network, dropouts: Dropouts, images: Tensor, masks: tuple[Tensor, ...] | None
) -> tuple[Tensor, Tensor]:
    with Masked(dropouts, len(images), masks) as masked:
        logits = network.logits(images)
    masked.check()
    return logits, masked.entered


def _gives(way: Passes, pair: Tensor, keeps: list[Tensor], expected: Tensor) -> bool:
    try:
        logits = torch.cat(list(way.logits(pair.clone(), keeps)))
    except (RuntimeError, ValueError):  # what cannot be mapped
        return False
    tolerance = 1e-4 if expected.dtype in (torch.float32, torch.float64) else 2e-2
    return bool((logits - expected).abs().max() <= tolerance * expected.abs().max())
