"""Reconstruction as an auxiliary task."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from attribguard.batch import Batch
from attribguard.corruption import Corruption
from attribguard.errors import RangeError, TypeMismatchError, check_choice
from attribguard.heads.base import DecoderChoice, Head

__all__ = ["ReconstructionHead"]


class ReconstructionHead(Head):
    r"""The image, drawn again from the classifier's features.

    .. math::
        L_\mathrm{rec} = \frac{1}{n} \sum_i (p_i - q_i)^2

    Hirata and Okita, Eq. 4, over an image's channels and pixels, per sample. Every sample counts, annotated or not.
    ``target="masked"`` asks for the image with what lies outside its mask corrupted (Viviano et al., *Reconstruct
    Masked*): the same corrupted image that a penalty of the step compares with, if there is one. The prediction,
    (N, C, H, W), is the image, or its logits with ``loss="bce"``.

    Args:
        weight: 0 or more; 0.4 in Hirata and Okita.
        loss: ``"mse"``, or ``"bce"``: binary cross entropy with logits, for images in [0, 1].
        target: ``"input"`` or ``"masked"``.
        corruption: how the target is corrupted; ``None``: as the guard's first penalty with a corruption does it, and
            shuffled if there is none. For ``target="masked"`` alone.
        decoder: see :class:`Head`.
        layers: see :class:`Head`.
        name: the term's and the prediction's name.

    Raises:
        RangeError: if an argument is out of its range.

    Example:
        >>> ReconstructionHead(weight=0.4)
        ReconstructionHead(weight=0.4, name='reconstruction', loss='mse', target='input')
    """

    def __init__(
        self,
        weight: float,
        *,
        loss: Literal["mse", "bce"] = "mse",
        target: Literal["input", "masked"] = "input",
        corruption: Corruption | None = None,
        decoder: DecoderChoice = "auto",
        layers: str | Sequence[str] = (),
        name: str = "reconstruction",
    ) -> None:
        super().__init__(weight, decoder=decoder, layers=layers, name=name)
        check_choice("loss", loss, ("mse", "bce"))
        check_choice("target", target, ("input", "masked"))
        if not (corruption is None or isinstance(corruption, Corruption)):
            raise TypeMismatchError(got=f"corruption={corruption!r}", needed="a Corruption", fix="Corruption('zero')")
        if corruption is not None and target == "input":
            raise RangeError(got="a corruption with target='input'", needed="target='masked'", fix="set the target")
        self.form, self.target = loss, target
        self.needs_corrupted, self.corruption = target == "masked", corruption

    def out_channels(self, image_channels: int) -> int:
        """Those of the images."""
        return image_channels

    def check(self, batch: Batch, *, values: bool) -> None:
        """Refuse images outside [0, 1] for binary cross entropy."""
        if values and self.form == "bce" and not bool(((batch.x >= 0) & (batch.x <= 1)).all()):
            raise RangeError(
                got=f"images from {batch.x.min().item():.4g} to {batch.x.max().item():.4g} for loss='bce'",
                needed="values in [0, 1]",
                fix="scale them, or use loss='mse'",
            )

    def loss(self, prediction: Tensor, batch: Batch, corrupted: Tensor | None) -> Tensor:
        """The loss of each sample, (N,)."""
        target = (batch.x if corrupted is None else corrupted).detach().to(prediction.dtype)
        measure = F.mse_loss if self.form == "mse" else F.binary_cross_entropy_with_logits
        return measure(prediction, target, reduction="none").flatten(1).mean(1)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{super().extra_repr()}, loss={self.form!r}, target={self.target!r}"
