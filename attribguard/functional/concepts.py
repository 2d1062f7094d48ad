"""Connected components of many sparse maps at once, and which of them meet a region."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from attribguard.errors import ShapeError, TypeMismatchError, check_choice
from attribguard.functional.true_cells import true_cells

__all__ = ["CONNECTIVITIES", "count_concepts"]

CONNECTIVITIES = (4, 8)


def count_concepts(active: Tensor, region: Tensor, connectivity: int = 8) -> Tensor:
    """How many connected components of each map overlap the region (Li et al., Section 3.2).

    The paper calls a component of a unit's thresholded map that overlaps the annotated box a concept. Only active
    cells are looked at: they are the nodes of one graph over all maps, and its components are found in one call. Time
    and memory grow with their number, not with that of all cells.

    Args:
        active: (N, U, h, w) bool, where each unit's map is above its threshold.
        region: (N, h, w) bool, one for all units of an image.
        connectivity: 4, cells that share an edge are joined, or 8, also those that share a corner. The paper does not
            say.

    Returns:
        (N, U) int64, on the maps' device; the components themselves are found on the CPU.

    Raises:
        TypeMismatchError: if one is no bool tensor.
        ShapeError: if the shapes do not go together.
        RangeError: if the connectivity is neither 4 nor 8.

    Example:
        >>> active = torch.tensor([[[[1, 0, 1], [0, 1, 0], [0, 0, 0]]]]).bool()
        >>> region = torch.tensor([[[1, 1, 1], [0, 0, 0], [0, 0, 0]]]).bool()
        >>> count_concepts(active, region, 8), count_concepts(active, region, 4)
        (tensor([[1]]), tensor([[2]]))
    """
    _check(active, region)
    check_choice("connectivity", connectivity, CONNECTIVITIES)
    n, units, height, width = active.shape
    cells = true_cells(active).cpu().numpy()
    if len(cells) == 0:
        return torch.zeros(n, units, dtype=torch.int64, device=active.device)
    maps, place = np.divmod(cells, height * width)
    inside = region.flatten(1).cpu().numpy()[maps // units, place]
    # A line and a column that are never active follow every map, so that no neighbour lies in the next line or map.
    keys = maps * ((height + 1) * (width + 1)) + place + place // width
    steps = (1, width + 1) if connectivity == 4 else (1, width, width + 1, width + 2)
    ends = []
    for step in steps:
        # The keys ascend, as the cells do.
        near = np.searchsorted(keys, keys + step).clip(max=len(keys) - 1)
        joined = np.flatnonzero(keys[near] == keys + step)
        ends.append((joined, near[joined]))
    first, second = (np.concatenate(side) for side in zip(*ends, strict=True))
    graph = coo_array((np.ones(len(first), bool), (first, second)), shape=(len(keys), len(keys)))
    components, labels = connected_components(graph, directed=False)
    map_of = np.empty(components, np.int64)
    map_of[labels] = maps
    counts = np.bincount(map_of[np.unique(labels[inside])], minlength=n * units)
    return torch.from_numpy(counts.reshape(n, units)).to(active.device)


def _check(active: Tensor, region: Tensor) -> None:
    for name, tensor in (("active", active), ("region", region)):
        if not isinstance(tensor, Tensor) or tensor.dtype != torch.bool:
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise TypeMismatchError(got=f"{name} of {kind}", needed="a bool tensor", fix="compare with a threshold")
    if active.dim() != 4 or region.shape != (len(active), *active.shape[2:]):
        raise ShapeError(
            got=f"active maps of shape {tuple(active.shape)} and a region of shape {tuple(region.shape)}",
            needed="(N, U, h, w) and (N, h, w)",
            fix="bring the region to the maps' size",
        )
