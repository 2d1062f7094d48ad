"""Check what a scan is given: one clear error, nothing changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Generator, Tensor, nn

from attribguard.compiling import is_compiled
from attribguard.errors import DataError, ModelError, RangeError, ShapeError, TypeMismatchError, check_choice
from attribguard.probes.patch_swap.patch_grid import PatchGrid, check_whole

__all__ = [
    "Dropout", "Mode", "Reduce", "check_images", "check_model", "check_options", "check_shares", "check_source_class",
    "make_grids", "read_seed",
]  # fmt: skip

Mode = Literal["swap", "blank", "blur"]
Reduce = Literal["mean", "median"]
Dropout = Literal["independent"] | float | None


def check_model(model: nn.Module) -> None:
    """Refuse what hides its dropout.

    Args:
        model: the network.

    Raises:
        TypeMismatchError: if it is no module.
        ModelError: if it is compiled or scripted.
    """
    if not isinstance(model, nn.Module):
        raise TypeMismatchError(got=f"a model of {type(model).__name__}", needed="a torch.nn.Module", fix="build it")
    for module in model.modules():
        compiled = is_compiled(module)
        if compiled or isinstance(module, torch.jit.ScriptModule):
            raise ModelError(
                got=f"a {'compiled' if compiled else 'scripted'} model, whose dropout no scan can see",
                needed="a model in Python",
                fix="scan the model before torch.compile or torch.jit",
            )


def check_images(name: str, images: object, like: Tensor | None = None) -> None:
    """Refuse what is no batch of images.

    Args:
        name: of the argument.
        images: what was given.
        like: images whose size they must have.

    Raises:
        TypeMismatchError: if they are no floating point tensor.
        ShapeError: if they are not (N, C, H, W), or not of that size.
        DataError: if there are none, or they are not finite.
    """
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeMismatchError(got=f"{name} of {kind}", needed="a floating point tensor", fix="convert them")
    if images.dim() != 4 or (like is not None and images.shape[1:] != like.shape[1:]):
        needed = "(N, C, H, W)" if like is None else f"(N, {', '.join(map(str, like.shape[1:]))}), as the sources"
        raise ShapeError(got=f"{name} of shape {tuple(images.shape)}", needed=needed, fix="reshape or resize them")
    if not images.numel() or not bool(images.isfinite().all()):
        got = f"{name} with values that are not finite" if images.numel() else f"no {name}"
        raise DataError(got=got, needed="at least one image of finite values", fix="check how they are read")


def check_options(passes: int, reduce: Reduce, dropout: Dropout, mode: Mode, batch_size: int | None) -> None:
    """Refuse options out of their range.

    Args:
        passes: as in :func:`patch_swap_scan`, like what follows.
        reduce: how passes are put together.
        dropout: how it is drawn or inserted.
        mode: what replaces a patch.
        batch_size: images at a time.

    Raises:
        TypeMismatchError: if a number is not whole, or ``dropout`` no number.
        RangeError: if an option is unknown or out of range.
    """
    check_whole("passes", passes, 1)
    check_choice("reduce", reduce, ("mean", "median"))
    check_choice("mode", mode, ("swap", "blank", "blur"))
    if batch_size is not None:
        check_whole("batch_size", batch_size, 1)
    if dropout is None or dropout == "independent":
        pass
    elif isinstance(dropout, bool) or not isinstance(dropout, float | int):
        raise TypeMismatchError(
            got=f"dropout={dropout!r}", needed="None, 'independent' or a share", fix="give a share between 0 and 1"
        )
    elif not 0 < dropout < 1:
        raise RangeError(got=f"dropout={dropout}", needed="a share between 0 and 1", fix="give another, such as 0.5")
    if passes == 1 and dropout is not None:
        raise RangeError(
            got=f"passes=1 with dropout={dropout!r}",
            needed="no dropout, for one pass gives the plain certainty",
            fix="leave dropout out, or raise passes",
        )


def check_shares(alpha: float, min_drop: float) -> None:
    """Refuse limits of suspicion out of their range.

    Args:
        alpha: the highest p value, in (0, 1].
        min_drop: the lowest drop of certainty, in [0, 1].

    Raises:
        RangeError: if one is out of range.
    """
    if not (0 < alpha <= 1 and 0 <= min_drop <= 1):
        raise RangeError(
            got=f"alpha={alpha}, min_drop={min_drop}", needed="alpha in (0, 1], min_drop in [0, 1]", fix="give shares"
        )


def make_grids(patch_size: int | Sequence[int], stride: int | None, image: tuple[int, int]) -> list[PatchGrid]:
    """One grid for each scale.

    Args:
        patch_size: one or several.
        stride: the same for all; by default each patch's own size.
        image: (H, W).

    Raises:
        TypeMismatchError: if a number is not whole.
        RangeError: if one does not fit the image, or there is none.
    """
    sizes = [patch_size] if isinstance(patch_size, int) else patch_size
    if isinstance(sizes, str) or not isinstance(sizes, Sequence):
        raise TypeMismatchError(got=f"patch_size={patch_size!r}", needed="pixels, or a list", fix="give an integer")
    if not sizes:
        raise RangeError(got="patch_size=[]", needed="at least one size", fix="give one in pixels")
    return [PatchGrid(image, size, size if stride is None else stride) for size in sizes]


def check_source_class(given: object, sources: int, classes: int) -> Tensor | None:
    """Read the class of each source.

    Args:
        given: a class for all, or one a source; ``None`` to be predicted.
        sources: how many sources there are.
        classes: how many classes the network tells apart.

    Returns:
        (S,) int64 on the CPU, or ``None``.

    Raises:
        TypeMismatchError: if they are no integers.
        ShapeError: if there is neither one nor one a source.
        RangeError: if one is out of range.
    """
    if given is None:
        return None
    try:
        read = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        read = torch.empty(0)
    if read.is_floating_point() or read.is_complex() or read.dtype == torch.bool:
        raise TypeMismatchError(got=f"source_class={given!r}", needed="integers", fix="give class indices")
    if read.shape not in ((), (sources,)):
        raise ShapeError(
            got=f"source_class of shape {tuple(read.shape)}", needed=f"one, or ({sources},)", fix="give one a source"
        )
    if read.min() < 0 or read.max() >= classes:
        raise RangeError(
            got=f"source_class from {int(read.min())} to {int(read.max())}",
            needed=f"0 to {classes - 1}",
            fix="give classes that the network knows",
        )
    return read.cpu().long().expand(sources)


def read_seed(generator: Generator | int | None) -> int:
    """The seed of a scan: a number as it is, a draw from a generator, or 0.

    Args:
        generator: either, or ``None``.

    Raises:
        TypeMismatchError: if it is neither.
        RangeError: if the number is negative or too long.
    """
    if isinstance(generator, Generator):
        return int(torch.randint(2**63 - 1, (), generator=generator, device=generator.device))
    if generator is not None:
        check_whole("generator", generator, 0, 2**63 - 1)
    return generator or 0
