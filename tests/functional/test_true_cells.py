"""The places of what is true are torch's own."""

import pytest
import torch

from attribguard.functional.true_cells import true_cells


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (4, 5, 6)])
def test_places_are_torchs_own_in_any_layout(shape, share):
    flags = torch.rand(shape) < share
    for given in (flags, flags.movedim(0, -1)) if flags.dim() else (flags,):
        found = true_cells(given)
        assert found.dtype == torch.int64
        assert torch.equal(found, given.flatten().nonzero()[:, 0])
