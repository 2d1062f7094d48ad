"""Scan the pairs of a data set's classes, one after the other, and go on where an earlier run stopped."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Generator, nn

from attribguard.errors import DataError, RangeError, TypeMismatchError
from attribguard.modes import undisturbed
from attribguard.network import Network, Output, device_of
from attribguard.probes.patch_swap.certainty import Certainty, count_classes, dropout_inserted
from attribguard.probes.patch_swap.class_pools import Items, Pool, draw_pools, read_item
from attribguard.probes.patch_swap.class_scan import ClassScan, PairScan
from attribguard.probes.patch_swap.pair_records import Fingerprint, PairRecords
from attribguard.probes.patch_swap.patch_grid import PatchGrid, check_whole
from attribguard.probes.patch_swap.progress_bar import progress_bar
from attribguard.probes.patch_swap.scan import patch_swap_scan
from attribguard.probes.patch_swap.scan_arguments import Dropout, Reduce, check_model, check_options, read_seed

__all__ = ["scan_classes"]

Pair = tuple[int, int]


def scan_classes(
    model: nn.Module,
    dataset: Items,
    *,
    pairs: int | Sequence[Pair] | None = None,
    sources: int = 20,
    targets: int = 50,
    patch_size: int = 4,
    stride: int | None = None,
    passes: int = 100,
    reduce: Reduce = "mean",
    dropout: Dropout = None,
    generator: Generator | int | None = None,
    batch_size: int | None = None,
    output: Output = None,
    path: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> ClassScan:
    """Scan every pair of classes of a data set, or some of them, and put what is found into one table.

    For each class, images are drawn at random until there are ``sources`` that the network classifies as it and
    ``targets`` others; each pair then is one :func:`patch_swap_scan`, with the same masks for all.

    Args:
        model: (N, C, H, W) to logits (N, K).
        dataset: with random access, items ``(image, target, ...)`` or dicts with those
            keys: (C, H, W) floating and a whole number.
        pairs: ``(source class, target class)`` each; a number: so many, drawn at random; all K (K - 1) by default.
        sources: S, the most that are taken of a class.
        targets: N, the most that are taken of a class.
        patch_size: as in :func:`patch_swap_scan`, like what follows.
        stride: pixels from one patch to the next.
        passes: T.
        reduce: how they are put together.
        dropout: how it is drawn or inserted.
        generator: of the images and pairs that are drawn, and of the masks.
        batch_size: images at a time.
        output: picks the logits.
        path: a file of JSON lines, one a pair, written as soon as it is scanned. Pairs that stand in it are not
            scanned again; it must be of the same network, images and options.
        progress: whether to show a bar on a terminal.

    Returns:
        The table.

    Raises:
        TypeMismatchError: if an argument or an item is of the wrong kind.
        RangeError: if a number is out of range, or a class none of the network's.
        DataError: if the data set is empty, or the file is another scan's.
        ModelError: as :func:`patch_swap_scan` does.

    Example:
        >>> network = nn.Sequential(nn.Dropout(), nn.Flatten(), nn.Linear(64, 2))
        >>> images = [(torch.rand(1, 8, 8), i % 2) for i in range(60)]
        >>> scan = scan_classes(network, images, sources=8, targets=5, passes=10)
        >>> [(pair.source_class, pair.target_class) for pair in scan.pairs]
        [(0, 1), (1, 0)]
    """
    check_model(model)
    check_options(passes, reduce, dropout, "swap", batch_size)
    check_whole("sources", sources, 1)
    check_whole("targets", targets, 1)
    if not len(dataset):
        raise DataError(got="an empty data set", needed="images", fix="check how it is read")
    network, example = Network(model, output), read_item(dataset, 0)[0][None]
    grid = PatchGrid((example.shape[-2], example.shape[-1]), patch_size, patch_size if stride is None else stride)
    records, device = PairRecords(None if path is None else Path(path)), device_of(model, example.device)
    with undisturbed(model, device), ExitStack() as stack:
        example = example.to(device)
        classes = count_classes(network, example)
        _check_pairs(pairs, classes)
        seed = read_seed(generator)
        chosen = _choose(pairs, classes, seed)
        # A network that cannot be scanned is refused before the data set is read.
        stack.enter_context(dropout_inserted(network, example, dropout))
        certainty = Certainty(network, example, passes, reduce, dropout == "independent", seed, batch_size)
        wanted = {*itertools.chain.from_iterable(chosen)}
        pools = draw_pools(dataset, lambda x: certainty.predict(x.to(device)), wanted, sources, targets, seed)
    options: dict[str, Any] = {"patch_size": patch_size, "stride": stride, "passes": passes}
    options |= {"reduce": reduce, "dropout": dropout, "generator": seed}
    fingerprint = Fingerprint(model, options)
    options |= {"batch_size": batch_size, "output": output, "progress": False}
    found = []
    with progress_bar(progress) as bar:
        for a, b in bar.track(chosen, description="pairs of classes"):
            key = fingerprint.of((*pools[a].sources, *pools[b].targets))
            if (pair := records.find(a, b, key)) is None:
                pair = _scan(model, a, b, pools, options)
                records.add(pair, key)
            found.append(pair)
    return ClassScan(tuple(found), grid, passes, seed)


def _scan(model: nn.Module, a: int, b: int, pools: dict[int, Pool], options: dict[str, Any]) -> PairScan:
    sources, targets = pools[a].sources, pools[b].targets
    if not sources or not targets:
        lacking = f"no image of class {b}" if sources else f"no image of class {a} that is classified as it"
        return PairScan(a, b, len(sources), len(targets), (), (), lacking)
    scan = patch_swap_scan(model, torch.stack(sources), torch.stack(targets), source_class=a, **options)
    return PairScan.of(a, b, scan)


def _check_pairs(pairs: int | Sequence[Pair] | None, classes: int) -> None:
    if pairs is None:
        return
    if isinstance(pairs, int):
        check_whole("pairs", pairs, 1, classes * (classes - 1))
        return
    if not pairs or not all(isinstance(pair, Sequence) and len(pair) == 2 for pair in pairs):
        raise TypeMismatchError(got=f"pairs={pairs!r}", needed="(source class, target class) each", fix="list them")
    for pair in pairs:
        for target in pair:
            check_whole("pairs: a class", target, 0, classes - 1)
        if pair[0] == pair[1]:
            raise RangeError(got=f"the pair {tuple(pair)}", needed="two different classes", fix="leave it out")


def _choose(pairs: int | Sequence[Pair] | None, classes: int, seed: int) -> list[Pair]:
    every = list(itertools.permutations(range(classes), 2))
    if pairs is None:
        return every
    if isinstance(pairs, int):
        drawn = torch.randperm(len(every), generator=torch.Generator().manual_seed(seed))[:pairs]
        return [every[i] for i in sorted(drawn.tolist())]
    return list(dict.fromkeys((a, b) for a, b in pairs))
