"""The errors of the library: each says what came, what was needed and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class AttribGuardError(Exception):
    """Base of every error that the library raises on purpose.

    Args:
        got: what came, in words ("a mask of shape (4, 28, 28)").
        needed: what was needed instead ("(8, 1, 28, 28) or (8, 28, 28)").
        fix: what to do about it, as an instruction.

    Example:
        >>> print(AttribGuardError(got="3 apples", needed="2 apples", fix="eat one"))
        got 3 apples; needed 2 apples; eat one
    """

    def __init__(self, *, got: str, needed: str, fix: str) -> None:
        super().__init__(f"got {got}; needed {needed}; {fix}")
        self.got, self.needed, self.fix = got, needed, fix

    def __reduce__(self) -> tuple[object, ...]:
        # Exception pickles its positional arguments, of which there are none here; workers send errors by pickle.
        return _rebuild, (type(self), self.got, self.needed, self.fix)


def _rebuild(kind: type[AttribGuardError], got: str, needed: str, fix: str) -> AttribGuardError:
    return kind(got=got, needed=needed, fix=fix)


class ShapeError(AttribGuardError, ValueError):
    """A tensor of the wrong shape."""


class TypeMismatchError(AttribGuardError, TypeError):
    """An object or tensor of the wrong type."""


class RangeError(AttribGuardError, ValueError):
    """A value outside its range."""


class LayerError(AttribGuardError, LookupError):
    """A layer that is unknown, never ran, or gives nothing that can be used."""


class ModelError(AttribGuardError, ValueError):
    """A model that cannot be guarded as it is."""


class DataError(AttribGuardError, ValueError):
    """A data set, file or folder that cannot be read as asked."""


def check_choice(name: str, value: object, known: Collection[object]) -> None:
    """Refuse an option that is none of those known.

    Args:
        name: of the argument.
        value: what was given.
        known: what may be given.

    Raises:
        RangeError: if it is none of them.
    """
    if value not in known:
        names = list(map(repr, known))
        needed = " or ".join(names) if len(names) == 2 else "one of " + ", ".join(names)
        raise RangeError(got=f"{name}={value!r}", needed=needed, fix="choose one of them")


__all__ = [
    "AttribGuardError",
    "DataError",
    "LayerError",
    "ModelError",
    "RangeError",
    "ShapeError",
    "TypeMismatchError",
]
