"""The audit: one pass over the images, then what can be said of them all."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from attribguard.attribution.model import model_behind
from attribguard.auditing.batches import read_batch
from attribguard.auditing.concepts import Concepts, count_units
from attribguard.auditing.figures import MOST_CLASSES, differences, figures, group_figures, shares
from attribguard.auditing.pools import SCAN_CLASSES, FeaturePool, ScanPool
from attribguard.auditing.progress_file import ProgressFile
from attribguard.auditing.report import BASELINE, MODEL, AuditReport, ModelReport
from attribguard.auditing.rows import ATTRIBUTIONS, Attribution, ImageRow, image_rows, see
from attribguard.auditing.scanning import Scan, scan_pool
from attribguard.errors import DataError, ModelError, RangeError, check_choice
from attribguard.functional.checks import is_whole
from attribguard.network import device_of

__all__ = ["PICTURES", "audit"]

PICTURES = 2000
"""The most images that a report shows; the others count and are not shown."""


def audit(
    model: nn.Module,
    loader: Iterable[Any],
    *,
    baseline: nn.Module | None = None,
    class_names: Sequence[str] | None = None,
    scan: bool = True,
    concepts: bool = True,
    max_images: int | None = None,
    seed: int = 0,
    attribution: Attribution = "gradcam",
    resume: str | Path | None = None,
    on_images: Callable[[int], None] = lambda done: None,
    names: Mapping[str, str] | None = None,
) -> AuditReport:
    """Find out whether a network is right, and for which reasons.

    One forward pass an image gives its class, and Grad-CAM of that class at the last map: accuracy, AUROC and average
    precision, and on annotated images how much of the evidence lies where the annotation says. From the first images
    of the first three classes a patch-swap scan (Hagos et al.) tells on which patch the network depends; from the
    first annotated images, 500 at most, concepts (Li et al.) tell which units know what is annotated.

    Intervals are percentile bootstraps at 95 %, with whole groups drawn where there are more than 50 groups (patients);
    fewer groups (hospitals) are reported one by one. The networks run in eval mode and are afterwards as they were.

    Args:
        model: images (N, C, H, W) to logits (N, K), one of K classes each; a single logit tells two classes.
        loader: gives ``(image, target)``, ``(image, target, mask)`` or dicts, see
            :func:`attribguard.auditing.batches.read_batch`. It should give the same images in the same order every
            time, so that an audit can be resumed.
        baseline: another network, which is measured on the same images; every figure then stands for both, with paired
            differences.
        class_names: of the K classes.
        scan: whether patches are swapped.
        concepts: whether concepts are counted.
        max_images: look at the first so many; at all by default.
        seed: of intervals and scan.
        attribution: ``"gradcam"`` of the last map, or ``"saliency"``, the absolute gradient of the logit with respect
            to the image, for networks whose last map has too few cells to show a place; it takes a pass of its own.
        resume: a file in which the rows of images are kept as they come, in a folder that exists. If it is there
            already, its images are not looked at again.
        on_images: called with the number of images done.
        names: what ``"model"``, ``"baseline"`` and ``"data"`` are called in the report.

    Returns:
        The report.

    Raises:
        TypeMismatchError: if a model is none, or a batch is of the wrong kind.
        ShapeError: if sizes do not fit.
        RangeError: if a class is none of the network's, or ``max_images`` or the seed is out of range.
        ModelError: if an output is not finite.
        LayerError: if a network has no map over the image.
        DataError: if there are no images, or the file is another audit's.

    Example:
        >>> head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), head)
        >>> batches = [(torch.rand(8, 1, 16, 16), torch.arange(8) % 2)]
        >>> report = audit(network, batches, scan=False)
        >>> report.models["model"].figures["accuracy"].n
        8
    """
    check_choice("attribution", attribution, ATTRIBUTIONS)
    if max_images is not None and not is_whole(max_images, 1):
        raise RangeError(
            got=f"max_images={max_images}", needed="a whole number, 1 or more, or None", fix="leave it out for all"
        )
    if not is_whole(seed, 0):
        raise RangeError(got=f"seed={seed}", needed="a whole number, 0 or more", fix="choose another")
    networks = {MODEL: model_behind(model)} | ({} if baseline is None else {BASELINE: model_behind(baseline)})
    options = {"max_images": max_images, "seed": seed, "attribution": attribution}
    kept = ProgressFile(None if resume is None else Path(resume), networks, options)
    scanned, features = ScanPool(), {name: FeaturePool() for name in networks}
    more = _stream(networks, loader, kept, scanned, features if concepts else {}, options, on_images)
    rows = kept.rows
    if not rows:
        raise DataError(got="a loader without images", needed="one batch or more", fix="check the data set")
    classes = max(len(seen.logits) for seen in rows[0].seen.values())
    if class_names is not None and len(class_names) != classes:
        raise RangeError(got=f"{len(class_names)} class_names", needed=f"{classes}", fix="name each class once")
    left_out = [f"Images after the first {len(rows)}: max_images."] if more else []
    scans = {name: _scan(network, name, scanned, seed, left_out) for name, network in networks.items()} if scan else {}
    counted = {name: _count(name, pool, left_out) for name, pool in features.items()} if concepts else {}
    if classes > MOST_CLASSES:
        left_out.append(f"AUROC and average precision: {classes} classes are more than {MOST_CLASSES}.")
    annotation = shares(rows)
    if not annotation["annotated"]:
        left_out.append("Where the networks look: no image is annotated.")
    return AuditReport(
        models={
            name: ModelReport(
                figures(rows, name, seed), group_figures(rows, name, seed), scans.get(name), counted.get(name)
            )
            for name in networks
        },
        differences=differences(rows, MODEL, BASELINE, seed) if baseline is not None else {},
        class_names=[] if class_names is None else list(class_names),
        annotated=int(annotation["annotated"]),
        relevant=annotation["relevant"],
        left_out=[*left_out, *_limited(rows)],
        settings={**options, "names": dict(names or {}), "versions": _versions()},
        images=_shown(rows),
    )


def _stream(
    networks: Mapping[str, nn.Module],
    loader: Iterable[Any],
    kept: ProgressFile,
    scanned: ScanPool,
    features: Mapping[str, FeaturePool],
    options: Mapping[str, Any],
    on_images: Callable[[int], None],
) -> bool:
    """Look at all images that are not done yet; whether there were more than were asked for."""
    done, max_images = 0, options["max_images"]
    for given in loader:
        if done == max_images:
            return True
        whole = read_batch(given, done)
        batch = whole if max_images is None else whole.first(max_images - done)
        end = done + len(batch.images)
        scanned.add(batch)
        wanted = [pool for pool in features.values() if not pool.full]
        new = range(max(done, len(kept.rows)), end)
        if new or wanted:
            seen = {}
            for name, network in networks.items():
                moved = batch._replace(images=batch.images.to(device_of(network, batch.images.device)))
                looked, seen[name] = see(name, network, moved, options["attribution"])
                if name in features:
                    features[name].add(looked.features, batch.regions)
            kept.add(image_rows(batch, seen)[new.start - done :] if new else [])
        done = end
        on_images(done)
        if len(batch.images) < len(whole.images):
            return True
    if done < len(kept.rows):
        raise DataError(
            got=f"{done} images, of which {len(kept.rows)} were looked at before",
            needed="the same images",
            fix="start anew",
        )
    return False


def _scan(network: nn.Module, name: str, pool: ScanPool, seed: int, left_out: list[str]) -> Scan | None:
    if name == MODEL and pool.passed_over:
        left_out.append(f"Patches of classes other than the first {SCAN_CLASSES} that came.")
    try:
        return scan_pool(network, pool, seed)
    except (ModelError, DataError) as error:
        left_out.append(f"The scan of the {name}: {error}.")
        return None


def _count(name: str, pool: FeaturePool, left_out: list[str]) -> Concepts | None:
    if not pool.features:
        left_out.append(f"Concepts of the {name}: no image is annotated.")
        return None
    if pool.full and name == MODEL:
        left_out.append(f"Concepts on annotated images after the first {len(pool.features)}.")
    return count_units(pool)


def _limited(rows: Sequence[ImageRow]) -> list[str]:
    hidden = len(rows) - PICTURES
    return (
        [f"Pictures of {hidden} images, of those that were classified well and looked at rightly."]
        if hidden > 0
        else []
    )


def _shown(rows: Sequence[ImageRow]) -> list[ImageRow]:
    """All rows; pictures stay with those that are most worth seeing: wrong ones, then little evidence inside."""

    def worth(row: ImageRow) -> tuple[bool, float]:
        seen = row.seen[MODEL]
        inside = seen.where["inside"]
        return seen.predicted == row.target, 1.0 if inside is None else inside

    order = sorted(range(len(rows)), key=lambda number: worth(rows[number]))
    bare = set(order[PICTURES:])
    return [_without_pictures(row) if number in bare else row for number, row in enumerate(rows)]


def _without_pictures(row: ImageRow) -> ImageRow:
    seen = {name: replace(one, heat="") for name, one in row.seen.items()}
    return replace(row, picture="", outline="", seen=seen)


def _versions() -> dict[str, str]:
    return {
        "attribguard": version("attribguard"),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "timm": timm.__version__,
    }
