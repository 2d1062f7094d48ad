"""Errors say what came, what was needed and what to do, and can be caught as what they are."""

import copy
import pickle

import pytest

import attribguard
from attribguard import errors
from attribguard.errors import AttribGuardError

KINDS = [getattr(errors, name) for name in errors.__all__]
TEXT = {"got": "a mask of shape (2, 3)", "needed": "(4, 3, 3)", "fix": "resize it"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_says_what_came_what_was_needed_and_what_to_do(kind):
    error = kind(**TEXT)
    assert isinstance(error, attribguard.AttribGuardError)
    assert str(error) == "got a mask of shape (2, 3); needed (4, 3, 3); resize it"
    assert (error.got, error.needed, error.fix) == tuple(TEXT.values())


@pytest.mark.parametrize("part", TEXT)
def test_an_error_cannot_leave_a_part_out(part):
    with pytest.raises(TypeError, match=part):
        AttribGuardError(**{name: text for name, text in TEXT.items() if name != part})


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_survives_pickle_and_copy(kind):
    """Workers of a DataLoader and of `multiprocessing` send errors by pickle."""
    for copied in (pickle.loads(pickle.dumps(kind(**TEXT))), copy.copy(kind(**TEXT)), copy.deepcopy(kind(**TEXT))):
        assert type(copied) is kind
        assert str(copied) == str(kind(**TEXT))
        assert (copied.got, copied.needed, copied.fix) == tuple(TEXT.values())


@pytest.mark.parametrize(
    ("kind", "builtin"),
    [
        (errors.ShapeError, ValueError),
        (errors.RangeError, ValueError),
        (errors.ModelError, ValueError),
        (errors.DataError, ValueError),
        (errors.TypeMismatchError, TypeError),
        (errors.LayerError, LookupError),
    ],
)
def test_an_error_is_also_the_builtin_that_a_caller_expects(kind, builtin):
    with pytest.raises(builtin):
        raise kind(**TEXT)


def test_every_kind_of_error_is_listed_for_import():
    defined = {value for value in vars(errors).values() if isinstance(value, type)}
    assert defined == set(KINDS)
