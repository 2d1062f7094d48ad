"""Components of many maps at once against one map at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.functional.concepts import count_concepts
from tests.probes import concept_oracles as slow


def by_loops(active, region, connectivity):
    return [
        [slow.concepts(grid.numpy(), mask.numpy(), connectivity) for grid in maps]
        for maps, mask in zip(active, region, strict=True)
    ]


@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    share=st.sampled_from([0.1, 0.4, 0.6, 0.9]),
    connectivity=st.sampled_from([4, 8]),
    seed=st.integers(0, 10**6),
)
def test_every_map_is_counted_as_if_it_were_alone(shape, share, connectivity, seed):
    source = torch.Generator().manual_seed(seed)
    active = torch.rand(shape, generator=source) < share
    region = torch.rand(shape[0], *shape[2:], generator=source) < 0.3
    counts = count_concepts(active, region, connectivity)
    assert counts.dtype == torch.int64 and counts.shape == shape[:2]
    assert counts.tolist() == by_loops(active, region, connectivity)


@pytest.mark.parametrize("connectivity", [4, 8])
@pytest.mark.parametrize("size", [(7, 7), (28, 28), (3, 17)])
def test_maps_of_a_layer_are_counted_as_by_scipy_one_by_one(size, connectivity):
    active, region = torch.rand(4, 16, *size) > 0.8, torch.zeros(4, *size, dtype=torch.bool)
    for i in range(4):
        region[i, i % 3 :, : size[1] // 2 + i] = True
    counts = count_concepts(active, region, connectivity)
    assert counts.tolist() == by_loops(active, region, connectivity)
    assert counts.max() > 1


def test_neighbouring_lines_maps_and_images_are_not_joined():
    """The last cell of a line, map or image and the first of the next stand side by side in memory."""
    line = torch.tensor([[0, 0, 1], [1, 0, 0]]).bool().view(1, 1, 2, 3)
    assert count_concepts(line, torch.ones(1, 2, 3, dtype=torch.bool)).tolist() == [[2]]
    corners = torch.zeros(2, 2, 3, 3, dtype=torch.bool)
    corners[..., 0, 0] = corners[..., -1, -1] = True
    assert count_concepts(corners, torch.ones(2, 3, 3, dtype=torch.bool)).tolist() == [[2, 2], [2, 2]]


def test_a_component_counts_once_however_much_of_it_lies_in_the_region():
    active = torch.ones(1, 1, 4, 4, dtype=torch.bool)
    corner = torch.zeros(1, 4, 4, dtype=torch.bool)
    corner[0, 3, 3] = True
    assert count_concepts(active, corner).item() == count_concepts(active, ~corner).item() == 1
    assert count_concepts(active, corner & False).item() == count_concepts(active & False, corner).item() == 0


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ((torch.ones(1, 2, 3, 3), torch.ones(1, 3, 3).bool()), TypeMismatchError),
        ((torch.ones(1, 2, 3, 3).bool(), np.ones((1, 3, 3), bool)), TypeMismatchError),
        ((torch.ones(1, 3, 3).bool(), torch.ones(1, 3, 3).bool()), ShapeError),
        ((torch.ones(2, 2, 3, 3).bool(), torch.ones(1, 3, 3).bool()), ShapeError),
        ((torch.ones(1, 2, 3, 3).bool(), torch.ones(1, 3, 4).bool()), ShapeError),
        ((torch.ones(1, 2, 3, 3).bool(), torch.ones(1, 3, 3).bool(), 6), RangeError),
    ],
)
def test_maps_that_cannot_be_counted_are_refused(arguments, kind):
    with pytest.raises(kind):
        count_concepts(*arguments)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_maps_on_a_gpu_give_the_same_there():
    active, region = torch.rand(3, 8, 9, 9) > 0.6, torch.rand(3, 9, 9) > 0.7
    counts = count_concepts(active.cuda(), region.cuda())
    assert counts.is_cuda and counts.tolist() == by_loops(active, region, 8)
