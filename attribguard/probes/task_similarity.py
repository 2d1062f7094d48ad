"""Whether the tasks pull the shared parameters in one direction, and whether other tasks make other features."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribguard.errors import DataError, RangeError, TypeMismatchError
from attribguard.layers import check_layers
from attribguard.network import Network
from attribguard.probes.gradient_cosine import GradientCosine, gradient_cosine
from attribguard.probes.layer_similarity import LayerSimilarity
from attribguard.probes.subject import as_arguments, measured
from attribguard.validation import check_wrapped

if TYPE_CHECKING:
    from attribguard.guard import Guard

__all__ = ["TaskSimilarity", "task_similarity"]


@dataclass(frozen=True, eq=False)
class TaskSimilarity:
    """What :func:`task_similarity` found.

    Attributes:
        gradients: guard to the cosines between its terms' gradients; ``"guard"`` where one came without a name.
        layers: the places where features were compared, L of them.
        cka: (L, G, G) in [0, 1], the guards in the order of ``gradients``; nan where features do not vary, ``None`` for
            one guard.
        images: how many were measured.
        batches: how many there were.
    """

    gradients: dict[str, GradientCosine]
    layers: tuple[str, ...]
    cka: NDArray[np.float64] | None = field(repr=False)
    images: int
    batches: int

    def summary(self) -> str:
        """The figures as tables of plain text."""
        parts = [f"{self.images} images in {self.batches} batches"]
        for name, found in self.gradients.items():
            pairs = zip(found.mean, found.error, strict=True)
            cells = [[f"{m:z.2f} ± {e:.2f}" for m, e in zip(*pair, strict=True)] for pair in pairs]
            parts.append(_table(f"{name}: cosine between gradients (mean ± standard error)", found.terms, cells))
            left_out = [
                f"left out for {found.terms[i]} and {found.terms[j]}: {found.skipped[i, j]} of {self.batches} batches"
                for i, j in itertools.combinations(range(len(found.terms)), 2)
                if found.skipped[i, j]
            ]
            parts[-1] = "\n".join([parts[-1], *left_out])
        for layer, similarity in zip(self.layers, () if self.cka is None else self.cka, strict=True):
            cells = [[f"{value:.3f}" for value in row] for row in similarity]
            parts.append(_table(f"{layer}: linear CKA", tuple(self.gradients), cells))
        return "\n\n".join(parts)


def task_similarity(
    guards: Guard | Mapping[str, Guard],
    loader: Iterable[Any],
    *,
    layers: str | Sequence[str] | None = None,
    pool: bool = False,
    max_batches: int | None = None,
    evaluating: bool = True,
) -> TaskSimilarity:
    r"""Measure how a guard's tasks get along, and how alike the features are to which different tasks lead.

    For each guard, the cosine between the gradients of its terms (criterion, heads and penalties whose weight is above
    0; the weights themselves do not matter),

    .. math::
        \cos_{ij} = \frac{\langle \nabla_{S_{ij}} L_i, \nabla_{S_{ij}} L_j \rangle}
                         {\| \nabla_{S_{ij}} L_i \| \, \| \nabla_{S_{ij}} L_j \|},

    where :math:`S_{ij}` are the trainable parameters of ``guard.model`` that both terms reach: on which both depend in
    autograd's graph. Decoders are never among them, nor is the last layer of a classifier between classification and a
    head; and what two terms give does not depend on which others there are. Below 0, a small step for the one undoes
    some of the other. The mean over batches and its standard error are given, each batch counting once. A batch in
    which one of two gradients is absent, zero (nobody annotated) or not finite is left out for this pair, and counted.

    For two or more guards, also the linear CKA of Kornblith et al. (2019) between their features for the same images,
    layer by layer, see :class:`attribguard.probes.linear_cka.LinearCKA`. A row is a position of a map; class and
    register tokens are left out. It is that of all batches at once.

    The guards are afterwards as before: gradients, buffers, modes, hooks, counters. So is the random state, whatever
    the loader drew included. In several processes, each measures its own share.

    Args:
        guards: one, or names to guards: one architecture, trained for different tasks.
        loader: of ``(x, target)``, ``(x, target, mask)`` or dicts of the guard's arguments (``x`` and ``target``, and
            of ``mask``, ``segmentation`` and ``annotated`` what there is), which are moved to the guards' devices.
        layers: names or patterns of modules whose features are compared; by default the last map at each scale, where
            heads read by default.
        pool: whether an image is one row, the mean over its map; the guards' maps may then differ in size.
        max_batches: how many to measure; all by default.
        evaluating: whether to measure in eval mode. ``False`` leaves each module in the mode in which it is: the
            gradients of training come with its dropout and batch statistics.

    Returns:
        Cosines, similarities and counts; ``summary()`` makes tables of them.

    Raises:
        TypeMismatchError: if an argument or a batch is of the wrong kind, or a target is missing.
        RangeError: if a batch has other keys, no weight is above 0, or ``max_batches`` is below 1.
        DataError: if the loader is empty.
        LayerError: if a layer is unknown, or the guards have not the same.
        ShapeError: if the guards' maps differ in size and are not pooled.
        ModelError: if a guard is unwrapped, or cannot be differentiated term by term.
        AttribGuardError: for a bad batch, as a guarded call.

    Example:
        >>> from torch import nn
        >>> from attribguard import ReconstructionHead, wrap
        >>> model = nn.Sequential(nn.Conv2d(1, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
        >>> guard = wrap(model, heads=[ReconstructionHead(weight=0.4)], example_input=(1, 8, 8))
        >>> batches = [(torch.rand(2, 1, 8, 8), torch.tensor([0, 1])) for _ in range(3)]
        >>> task_similarity(guard, batches)
        TaskSimilarity(gradients={'guard': GradientCosine(terms=('criterion', 'reconstruction'))}, layers=(), images=6,
            batches=3)
    """
    named = _check_guards(guards)
    if max_batches is not None and (type(max_batches) is not int or max_batches < 1):
        raise RangeError(got=f"max_batches={max_batches!r}", needed="a whole number, 1 or more", fix="or leave it out")
    if not isinstance(loader, Iterable):
        raise TypeMismatchError(got=f"a loader of {type(loader).__name__}", needed="batches", fix="use a DataLoader")
    wanted = (layers,) if isinstance(layers, str) else layers if layers is None else tuple(layers)
    for guard in named.values():
        check_wrapped(guard._network)
        check_layers(wanted or (), guard.model)
    names: dict[str, tuple[str, ...]] = {}
    cosines: dict[str, list[Tensor]] = {name: [] for name in named}
    images = batches = 0
    with ExitStack() as stack:
        subjects = {name: stack.enter_context(measured(g, evaluating=evaluating)) for name, g in named.items()}
        features = LayerSimilarity(list(subjects.values()), wanted, pool) if len(named) > 1 else None
        stack.enter_context(torch.enable_grad())  # also for a loader that differentiates
        for batch in itertools.islice(loader, max_batches):
            arguments = as_arguments(batch)
            for name, subject in subjects.items():
                terms = subject.terms(arguments)
                names[name] = tuple(terms)
                trainable = [p for p in subject.network.model.parameters() if p.requires_grad]
                cosines[name].append(gradient_cosine(terms, trainable))
            if features is not None:
                features.update(arguments["x"])
            images, batches = images + len(arguments["x"]), batches + 1
    if not batches:
        raise DataError(got="a loader without batches", needed="one or more", fix="check the data set and drop_last")
    return TaskSimilarity(
        gradients={name: GradientCosine.over(names[name], cosines[name]) for name in named},
        layers=features.points if features else (),
        cka=features.compute().numpy() if features else None,
        images=images,
        batches=batches,
    )


def _check_guards(guards: Guard | Mapping[str, Guard]) -> dict[str, Guard]:
    named = dict(guards) if isinstance(guards, Mapping) else {"guard": guards}
    # A compiled guard passes on what it does not have, but has no network in its own dict.
    fits = [isinstance(getattr(guard, "__dict__", {}).get("_network"), Network) for guard in named.values()]
    if not named or not all(fits) or not all(isinstance(name, str) for name in named):
        raise TypeMismatchError(
            got=f"guards={{{', '.join(f'{name!r}: {type(guard).__name__}' for name, guard in named.items())}}}",
            needed="a guard, or a mapping of names to guards",
            fix="pass what wrap gave: neither the model itself, nor the guard compiled or distributed",
        )
    return named


def _table(title: str, names: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    width = max(map(len, [*names, *itertools.chain(*cells)]))
    rows = [["", *names], *([name, *row] for name, row in zip(names, cells, strict=True))]
    return "\n".join([title, *("  ".join(cell.rjust(width) for cell in row) for row in rows)])
