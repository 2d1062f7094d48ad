"""Classes and groups: what numbers they become."""

import numpy as np
import pytest
import torch

from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from attribguard.probes.labels import as_classes, as_groups

NAMES = ["p7", "p8", "p7", ""]


def test_numbers_stay_as_they_are():
    for form in ([3, 0, 3], (3, 0, 3), np.array([3, 0, 3]), torch.tensor([3, 0, 3], dtype=torch.int32)):
        assert as_classes(form, 3).tolist() == as_groups(form, 3).tolist() == [3, 0, 3]
    assert as_groups([-5, 2**62], 2).tolist() == [-5, 2**62]
    assert as_groups([], 0).shape == as_classes([], 0).shape == (0,)


def test_equal_names_and_only_those_get_one_number():
    for form in (NAMES, tuple(NAMES), np.array(NAMES)):
        numbers = as_groups(form, 4)
        assert numbers.dtype == torch.int64
        assert numbers[0] == numbers[2] and len(numbers.unique()) == 3
    many = as_groups([f"patient {i}" for i in range(20_000)], 20_000)
    assert len(many.unique()) == 20_000


def test_names_get_the_same_number_in_every_process():
    """The first eight bytes of BLAKE2b, as `b2sum -l 64` prints them; Python's own hash differs from run to run."""
    digests = ["49df726d0482d983", "e4a6a0577479b2b4"]
    expected = [int.from_bytes(bytes.fromhex(digest), "big", signed=True) for digest in digests]
    assert as_groups(["patient 7", ""], 2).tolist() == expected


@pytest.mark.parametrize(
    ("labels", "kind"),
    [
        ([0.0, 1.0], TypeMismatchError),
        ([True, False], TypeMismatchError),
        (torch.tensor([1 + 0j, 2]), TypeMismatchError),
        ([None, 1], TypeMismatchError),
        ([1, 2, 3], ShapeError),
        ([[1], [2]], ShapeError),
        (torch.tensor(1), TypeMismatchError),
        (7, TypeMismatchError),
        ("ab", TypeMismatchError),
    ],
)
def test_other_labels_are_one_clear_error(labels, kind):
    for make in (as_classes, as_groups):
        with pytest.raises(kind, match="one for each image"):
            make(labels, 2)


def test_classes_are_indices():
    with pytest.raises(RangeError, match="class -1"):
        as_classes([0, -1], 2)
    with pytest.raises(TypeMismatchError, match="classes"):
        as_classes(["a", "b"], 2)
