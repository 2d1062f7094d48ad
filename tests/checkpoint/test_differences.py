"""The comparison that the other tests rest on."""

import torch

from tests.checkpoint.differences import differences


def test_any_difference_is_found():
    one = {"a": [torch.zeros(2), 1.0], "b": ()}
    assert differences(one, {"a": [torch.zeros(2), 1.0], "b": ()}) == []
    for other in (
        {"a": [-torch.zeros(2), 1.0], "b": ()},
        {"a": [torch.zeros(2).double(), 1.0], "b": ()},
        {"a": [torch.zeros(1, 2), 1.0], "b": ()},
        {"a": [torch.zeros(2), 1], "b": ()},
        {"a": [torch.zeros(2), 1.5], "b": ()},
        {"a": [torch.zeros(2)], "b": ()},
        {"a": [torch.zeros(2), 1.0]},
    ):
        assert len(differences(one, other)) == 1
