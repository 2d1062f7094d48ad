"""Swap patches between images and see which of them a network cannot do without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from attribguard.errors import DataError, TypeMismatchError
from attribguard.modes import undisturbed
from attribguard.network import Network, Output, device_of
from attribguard.probes.patch_swap.certainty import Certainty, count_classes, dropout_inserted
from attribguard.probes.patch_swap.progress_bar import progress_bar
from attribguard.probes.patch_swap.scan_arguments import (
    Dropout,
    Mode,
    Reduce,
    check_images,
    check_model,
    check_options,
    check_source_class,
    make_grids,
    read_seed,
)
from attribguard.probes.patch_swap.scan_result import ScanResult
from attribguard.probes.patch_swap.swaps import Swaps, make_donors, to_picture

__all__ = ["patch_swap_scan"]


@overload
def patch_swap_scan(
    model: nn.Module, sources: Tensor, targets: Tensor | None = None, *, patch_size: int = 4, **options: Any
) -> ScanResult: ...


@overload
def patch_swap_scan(
    model: nn.Module, sources: Tensor, targets: Tensor | None = None, *, patch_size: Sequence[int], **options: Any
) -> list[ScanResult]: ...


def patch_swap_scan(  # type: ignore[misc] # the overloads take any options, to say what comes back and no more
    model: nn.Module,
    sources: Tensor,
    targets: Tensor | None = None,
    *,
    source_class: int | Sequence[int] | Tensor | None = None,
    patch_size: int | Sequence[int] = 4,
    stride: int | None = None,
    passes: int = 100,
    reduce: Reduce = "mean",
    dropout: Dropout = None,
    mode: Mode = "swap",
    generator: Generator | int | None = None,
    batch_size: int | None = None,
    output: Output = None,
    progress: bool = True,
) -> ScanResult | list[ScanResult]:
    r"""Find the patch of an image that a network cannot do without, with no annotation at all.

    Hagos et al. (2022), Sections 3.2.2 and 3.3: each patch of each source image is replaced by the same patch of each
    of N target images, and the network's certainty of the source's class is the mean probability over T passes with
    dropout on. A position at which it drops for all sources holds something on which the network depends; if that
    should not matter for the class, it is spurious.

    .. math::
        c_{snp} = \frac{1}{T} \sum_t \mathrm{P}_{m_t}(y_s \mid R_p(x_s, x_n)), \qquad
        \mathrm{drop}_p = \frac{1}{SN} \sum_{sn} \left( c_s - c_{snp} \right)

    Departures from the paper: in pass t every position, target and source sees the same dropout mask :math:`m_t`
    (common random numbers), so that differences between positions are not noise of the masks; several sources are
    scanned at once; positions are tested, not only ranked; and they are numbered from 0, so that the paper's patch 43
    is 42 here.

    Only dropout is random: ``nn.Dropout`` in all its forms, timm's ``drop_rate`` and ``F.dropout`` called with the
    train flag of their module. Calls that are written as always off stay off; everything else, BatchNorm and
    stochastic depth included, runs as in evaluation. A call that is reached in train mode only is not seen.

    What stands before the first dropout is computed once an image; where that is local (convolutions, pooling, fixed
    statistics), only on the surroundings of the swapped patch, after it was seen on noise that this gives the same
    features. Where the linear classifier follows on dropout, all
    passes are one matrix product; elsewhere they run side by side (``torch.vmap``), which takes T times the memory of
    one image's maps behind the dropout, or, in networks that cannot be mapped, one after the other. Which way is taken
    is measured on two images beforehand, against passes one after the other.

    The model is afterwards what it was: modes, buffers, hooks, gradients, and the random state.

    Args:
        model: (N, C, H, W) to logits (N, K); one logit tells two classes. Its dropout is found, its mode does not
            matter.
        sources: (S, C, H, W) floating, of one class, 8 or more for p values. Those that the network without dropout
            does not give their class are left out and counted.
        targets: (N, C, H, W), of another class, 2 or more for p values; not read by the other modes.
        source_class: the class of the sources, or (S,); by default what the network says of each.
        patch_size: side of the square patches in pixels; several sizes are scanned and reported apart.
        stride: pixels from one patch to the next, ``patch_size`` by default; smaller ones overlap.
        passes: T. 1 gives the plain certainty, with no dropout.
        reduce: ``"mean"`` over the passes, as in the paper, or ``"median"``.
        dropout: ``None``: common masks; ``"independent"``: each image draws its own in each pass, the textbook form,
            slower and noisier; a share between 0 and 1: inserted before the classifier for this scan, in networks that
            have none.
        mode: ``"swap"``; ``"blank"``: patches become 0; ``"blur"``: they come from the source blurred with a standard
            deviation of one eighth of its shorter side. The last two need no targets, N is then 1.
        generator: a generator, from which a seed is drawn, or the seed itself; 0 by default. The result's ``seed``
            given here repeats the scan.
        batch_size: images at a time; by default what some 256 MiB hold.
        output: picks the logits where the model gives a tuple or dict: an index, a key or a callable.
        progress: whether to show a bar on a terminal.

    Returns:
        One result, or a list of them for a list of patch sizes.

    Raises:
        TypeMismatchError: if an argument is of the wrong kind.
        ShapeError: if shapes do not fit each other.
        RangeError: if a number or option is out of range, a patch larger than the image.
        DataError: if there are no images, values are not finite, or no source is classified as its class.
        ModelError: if the network has no dropout, drops inside fused attention, is compiled, or gives no (N, K) logits.

    Example:
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2))
        >>> scan = patch_swap_scan(network, torch.rand(9, 1, 8, 8), torch.rand(5, 1, 8, 8), passes=20)
        >>> scan.certainty.shape, len(scan.grid)
        ((9, 5, 4), 4)
    """
    check_model(model)
    check_options(passes, reduce, dropout, mode, batch_size)
    check_images("sources", sources)
    if mode == "swap":
        if targets is None:
            raise TypeMismatchError(got="no targets", needed="images to swap with", fix="pass them, or mode='blur'")
        check_images("targets", targets, sources)
    grids = make_grids(patch_size, stride, (sources.shape[-2], sources.shape[-1]))
    network, device = Network(model, output), device_of(model, sources.device)
    with undisturbed(model, device), ExitStack() as stack:
        # Copies, which are no inference tensors whatever the caller's are.
        sources = sources.detach().to(device, copy=True)
        given = check_source_class(source_class, len(sources), count_classes(network, sources))
        stack.enter_context(dropout_inserted(network, sources, dropout))
        seed = read_seed(generator)
        certainty = Certainty(network, sources, passes, reduce, dropout == "independent", seed, batch_size)
        predicted = certainty.predict(sources)
        classes = predicted if given is None else given.to(device)
        kept = classes == predicted
        if not bool(kept.any()):
            raise DataError(
                got=f"{len(kept)} sources, none of which the network classifies as its class",
                needed="sources that it gets right, whose certainty can drop",
                fix="pass others, or check source_class",
            )
        sources, classes = sources[kept], classes[kept]
        donors = make_donors(mode, sources, targets)
        baseline = certainty.of_all(sources, classes)
        scans = [Swaps(sources, donors, grid) for grid in grids]
        bar = stack.enter_context(progress_bar(progress))
        task = bar.add_task("patch-swap scan", total=sum(len(scan) for scan in scans))
        certainties = [_scan(scan, certainty, classes, partial(bar.advance, task)) for scan in scans]
    results = [
        ScanResult(
            certainty=each,
            baseline=baseline.cpu().double().numpy(),
            source_class=tuple(classes.tolist()),
            grid=grid,
            passes=passes,
            seed=seed,
            mode=mode,
            reduce=reduce,
            dropout=dropout,
            left_out=len(kept) - len(sources),
            picture=to_picture(sources[0]),
        )
        for grid, each in zip(grids, certainties, strict=True)
    ]
    return results[0] if isinstance(patch_size, int) else results


def _scan(scan: Swaps, certainty: Certainty, classes: Tensor, advance: Callable[[float], None]) -> NDArray[np.float64]:
    parts = []
    for start in range(0, len(scan), certainty.batch_size):
        images, source = scan.images(start, start + certainty.batch_size)
        alike = scan.alike(start, start + certainty.batch_size)
        parts.append(certainty.of(images, classes[source], alike).cpu())
        advance(len(images))
    sources, donors, positions = scan.shape
    return torch.cat(parts).double().view(sources, positions, donors).mT.numpy()
