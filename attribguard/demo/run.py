"""The whole demo: data, two trainings, figures, picture, files."""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from attribguard.attribution import saliency
from attribguard.auditing import AuditReport, audit
from attribguard.auditing.page import render
from attribguard.demo.picture import Look, draw
from attribguard.demo.scores import Scores, measure
from attribguard.demo.splits import Split, load_splits
from attribguard.demo.train import Settings, reproducible, train
from attribguard.errors import RangeError
from attribguard.masks import dilate
from attribguard.penalties import ActDiff, Penalty
from attribguard.whole_files import check_writable, write_files

__all__ = ["PAGE", "PICTURE", "RESULT", "TITLES", "DemoResult", "run_demo"]

RESULT, PICTURE, PAGE = "result.json", "saliency.png", "audit.html"
TITLES = {"baseline": "trained plain", "guarded": "with ActDiff"}
_EXAMPLES = 2  # of each class in the picture


@dataclasses.dataclass(frozen=True)
class DemoResult:
    """What ``result.json`` holds.

    Attributes:
        baseline: the figures of the network trained plain.
        guarded: of the same network trained with ActDiff.
        seconds: from reading or drawing the images to the picture.
        seed: of weights, order, corruptions and drawn images.
        data: the folder of the files, or ``"generated"``.
        settings: everything else that the figures depend on.
    """

    baseline: Scores
    guarded: Scores
    seconds: float
    seed: int
    data: str
    settings: Settings


def run_demo(
    out: Path,
    *,
    data: Path | None = None,
    seed: int = 0,
    settings: Settings | None = None,
    on_step: Callable[[str, int, int], None] = lambda network, done, total: None,
) -> DemoResult:
    """Train the network plain and with ActDiff, measure both, and write ``result.json``, a picture and a page.

    The picture is ``saliency.png``, the page ``audit.html``. Runs on the CPU and leaves the global random state and the
    number of threads as they were. The same seed gives the same figures on the same machine.

    Args:
        out: folder to write to, made if need be; nothing appears in it before all files are complete.
        data: folder with the paper's files ``distractor1.npz`` to ``distractor3.npz``; by default crosses are drawn.
        seed: 0 or more, below 2 to the 63.
        settings: of the trainings.
        on_step: called after each step with ``"baseline"`` or ``"guarded"`` and the numbers of steps done and to do.

    Returns:
        What was written to ``result.json``.

    Raises:
        RangeError: if the seed is out of its range.
        DataError: if the data cannot be read or the folder not written to; before any training.
    """
    if not 0 <= seed < 2**63:
        raise RangeError(got=f"seed={seed}", needed="0 or more, below 2 to the 63", fix="give another seed")
    check_writable(out, (RESULT, PICTURE, PAGE))
    started = time.perf_counter()
    settings = settings or Settings()
    splits = load_splits(data, (settings.train_images, settings.valid_images, settings.test_images), seed)
    train_images, valid_images, test_images = (len(split.targets) for split in splits)
    settings = dataclasses.replace(
        settings, train_images=train_images, valid_images=valid_images, test_images=test_images
    )
    penalties: dict[str, list[Penalty]] = {
        "baseline": [],
        "guarded": [ActDiff(settings.weight, dilate=settings.dilate)],
    }
    examples = _first_of_each_class(splits.test)
    scores, looks, networks = {}, [], dict[str, nn.Module]()
    for name, title in TITLES.items():
        with reproducible(seed):  # the same state for both: the same first weights, the same order
            network = networks[name] = train(
                splits.train, penalties[name], settings, on_step=functools.partial(on_step, name)
            )
            scores[name] = measure(network, splits, settings.dilate)
        looks.append(_look(title, network, scores[name], splits.test, examples))
    picture = draw(examples, settings.dilate, looks)
    page = render(_audit(networks, splits.test, settings.dilate, seed, "drawn crosses" if data is None else str(data)))
    seconds = round(time.perf_counter() - started, 1)
    source = "generated" if data is None else str(data)
    result = DemoResult(scores["baseline"], scores["guarded"], seconds, seed, source, settings)
    text = json.dumps(dataclasses.asdict(result), indent=2, allow_nan=False) + "\n"
    write_files(out, {RESULT: text.encode(), PICTURE: picture, PAGE: page.encode()})
    return result


def _audit(networks: dict[str, nn.Module], test: Split, pixels: int, seed: int, data: str) -> AuditReport:
    """The audit of both networks on the test images, with masks grown as in the training."""
    names = {
        "model": "the network with ActDiff",
        "baseline": "the network trained plain",
        "data": f"{data}, test split",
    }
    batch = (test.images, test.targets, dilate(test.masks, pixels))
    classes = ["two crosses", "one cross"]
    with reproducible(seed):
        return audit(
            networks["guarded"], [batch], baseline=networks["baseline"], class_names=classes, seed=seed, names=names,
            attribution="saliency",  # the last map has 2 x 2 cells, which show no place
        )  # fmt: skip


def _first_of_each_class(split: Split) -> Split:
    """The first ones, whatever the networks make of them: nothing is picked."""
    chosen = torch.cat([(split.targets == target).nonzero()[:_EXAMPLES, 0] for target in (0, 1)])
    return Split(*(tensor[chosen] for tensor in split))


def _look(title: str, network: nn.Module, scores: Scores, test: Split, examples: Split) -> Look:
    with torch.no_grad():
        right = int((network(test.images).argmax(1) == test.targets).sum())
        predicted = network(examples.images).argmax(1)
    maps = saliency(network, examples.images, examples.targets)[:, None]
    return Look(title, scores, (right, len(test.targets)), predicted, maps)
