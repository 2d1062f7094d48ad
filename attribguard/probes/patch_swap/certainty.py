"""How certain a network is that images are of given classes, by Monte Carlo dropout."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from attribguard.errors import ModelError, RangeError
from attribguard.network import Network
from attribguard.probes.patch_swap.dropout_calls import find_dropouts
from attribguard.probes.patch_swap.dropout_masks import Masks
from attribguard.probes.patch_swap.scan_arguments import Dropout, Reduce
from attribguard.probes.patch_swap.stochastic_passes import (
    Passes,
    RepeatedPasses,
    choose_passes,
    images_at_a_time,
    plain_logits,
)
from attribguard.probes.patch_swap.swaps import Alike

__all__ = ["Certainty", "count_classes", "dropout_inserted"]


class Certainty:
    """Mean Monte Carlo dropout of one network (Gal and Ghahramani 2016), the same masks for all images it is asked for.

    Args:
        network: the model, in eval mode.
        x: (N, C, H, W), some images to look at.
        passes: T; with 1 nothing is dropped.
        reduce: how the T probabilities become one.
        independent: whether every image draws its own masks.
        seed: of the masks.
        batch_size: images at a time; by default what some 256 MiB hold.

    Raises:
        ModelError: if nothing drops and ``passes`` is above 1, or the network cannot be scanned.
    """

    def __init__(
        self,
        network: Network,
        x: Tensor,
        passes: int,
        reduce: Reduce,
        independent: bool,
        seed: int,
        batch_size: int | None,
    ) -> None:
        self._network, self._reduce = network, reduce
        self._dropouts = find_dropouts(network.model, network.logits, x, training=passes > 1)
        self._masks: Masks | None = None
        self._way: Passes = RepeatedPasses(network, self._dropouts)
        if passes > 1:
            if not self._dropouts.live:
                raise ModelError(
                    got="a network without dropout",
                    needed="dropout for passes that differ",
                    fix="pass passes=1 for its plain certainty, or dropout=0.5 to insert it before the classifier",
                )
            self._masks = Masks(self._dropouts, passes, seed, independent, x.device)
            self._way = choose_passes(network, self._dropouts, self._masks, x, passes)
        self.batch_size = batch_size or images_at_a_time(self._way, x)

    def of(self, images: Tensor, classes: Tensor, alike: Sequence[Alike] = ()) -> Tensor:
        """The probability of each image's class, over the passes.

        Args:
            images: (B, C, H, W), up to ``batch_size`` of them.
            classes: (B,) integers.
            alike: which of them differ in one patch from what; saves work, changes nothing.

        Returns:
            (B,), in [0, 1].

        Raises:
            ModelError: if one is not finite.
        """
        if self._masks is None:
            return _finite(_probability(plain_logits(self._network, self._dropouts, images)[None], classes)[0])
        blocks = self._way.logits(images, self._masks.keep(len(images)), alike)
        by_pass = torch.cat([_probability(block, classes) for block in blocks])
        return _finite(by_pass.mean(0) if self._reduce == "mean" else _median(by_pass))

    def of_all(self, images: Tensor, classes: Tensor) -> Tensor:
        """As :meth:`of`, for any number of images.

        Args:
            images: (N, C, H, W).
            classes: (N,) integers.

        Returns:
            (N,), in [0, 1].
        """
        parts = zip(images.split(self.batch_size), classes.split(self.batch_size), strict=True)
        return torch.cat([self.of(*part) for part in parts])

    def predict(self, images: Tensor) -> Tensor:
        """The likeliest class of each image when nothing is dropped.

        Args:
            images: (N, C, H, W).

        Returns:
            (N,) int64.
        """
        parts = [plain_logits(self._network, self._dropouts, part) for part in images.split(self.batch_size)]
        logits = torch.cat(parts)
        return logits.argmax(1) if logits.shape[1] > 1 else (logits[:, 0] > 0).long()


def count_classes(network: Network, x: Tensor) -> int:
    """How many classes a network tells apart; one logit tells two.

    Args:
        network: the model.
        x: (N, C, H, W), for a look at it.

    Raises:
        ModelError: if its logits are not (N, K).
    """
    shape = network.look(x).logits
    if len(shape) != 1:
        raise ModelError(
            got=f"logits of shape {('N', *shape)} from the model",
            needed="(N, K)",
            fix="scan a classifier, or pass `output=`, a callable that picks its logits",
        )
    return max(shape[0], 2)


@contextmanager
def dropout_inserted(network: Network, x: Tensor, dropout: Dropout) -> Iterator[None]:
    """Drop what enters the classifier, as long as this lasts.

    Args:
        network: the model.
        x: (N, C, H, W), for a look at it.
        dropout: the share; anything but a number inserts nothing.

    Raises:
        RangeError: if the network drops something by itself.
        ModelError: if no linear or convolutional module gives the logits.
    """
    if dropout is None or isinstance(dropout, str):
        yield
        return
    if find_dropouts(network.model, network.logits, x).live:
        raise RangeError(
            got=f"dropout={dropout} for a network that has dropout",
            needed="a network without any",
            fix="leave the argument out, and the network's own dropout is used",
        )
    name = network.look(x).classifier
    module = None if name is None else network.model.get_submodule(name)
    if not isinstance(module, nn.Linear | nn.Conv2d):
        raise ModelError(
            got="a network whose logits no linear or convolutional module gives",
            needed="a classifier to insert dropout before",
            fix="put an nn.Dropout into the network, or pass passes=1",
        )
    handle = module.register_forward_pre_hook(lambda m, args: (F.dropout(args[0], dropout, True), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def _probability(logits: Tensor, classes: Tensor) -> Tensor:
    """Of each image's class: (t, B, K) to (t, B), in float32 at least."""
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if logits.shape[-1] == 1:
        return torch.where(classes == 1, logits[..., 0], -logits[..., 0]).sigmoid()
    # Over a few classes side by side softmax is slow; over classes apart, with passes side by side, it is vectorised.
    by_pass_last = logits.permute(1, 2, 0).softmax(1)
    return by_pass_last[torch.arange(len(classes), device=classes.device), classes].T


def _finite(certainty: Tensor) -> Tensor:
    if not bool(certainty.isfinite().all()):
        raise ModelError(
            got="probabilities that are not finite",
            needed="finite logits",
            fix="look for overflow in the network, in half precision above all",
        )
    return certainty


def _median(by_pass: Tensor) -> Tensor:
    # torch.median takes the lower of two middle values, torch.quantile no more than 2**24 numbers.
    middle = slice((len(by_pass) - 1) // 2, len(by_pass) // 2 + 1)
    return by_pass.sort(0).values[middle].mean(0)
