"""JSON that may have come from anywhere, read into the types that it should have."""

from __future__ import annotations

import errno
import json
import sys
import types
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

__all__ = ["check_regular", "parse_json", "read_regular", "typed"]

T = TypeVar("T")

_MOST = 2**63  # what numpy and torch hold as an integer


def check_regular(path: Path) -> None:
    """Refuse what is there and no file: opening a pipe may never come to its end, nor does reading a device.

    Args:
        path: to be opened.

    Raises:
        OSError: if it is a folder, a pipe or a device.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "is no file")


def read_regular(path: Path) -> bytes:
    """The content of a file.

    Args:
        path: of the file.

    Raises:
        OSError: if it cannot be read, or as :func:`check_regular`.
    """
    check_regular(path)
    return path.read_bytes()


def parse_json(text: bytes | str) -> Any:
    """Parse JSON, whatever it holds.

    Args:
        text: all of it; bytes are UTF-8.

    Raises:
        ValueError: if it is none, is nested too deeply, or holds NaN or infinity, which JSON has not.

    Example:
        >>> parse_json('{"a": [1, null]}')
        {'a': [1, None]}
    """
    try:
        return json.loads(text if isinstance(text, str) else text.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("brackets within brackets, too deep to read") from None


def typed(kind: type[T], plain: object, **special: Callable[[Any], object]) -> T:
    """What JSON holds as the type that was written, with every part of its own type.

    Args:
        kind: a dataclass, whose fields must all be there and no others, or any type that its fields may have: ``int``
            (of 64 bits), ``float`` (finite, or an integer), ``str``, ``bool``, ``None``, ``Any``, ``Literal``, unions,
            lists, tuples and mappings from ``str``.
        plain: what ``parse_json`` gave.
        special: for fields of the dataclass that JSON holds otherwise, what makes the value.

    Raises:
        ValueError: if a part has another type; it says which. As ``special`` and the dataclass do.

    Example:
        >>> typed(tuple[int, float], [1, 2])
        (1, 2.0)
        >>> typed(dict[str, int], {"a": 1.5})
        Traceback (most recent call last):
            ...
        ValueError: a: 1.5 is no int
    """
    try:
        return cast("T", _typed(kind, plain, "", special))
    except RecursionError:
        raise ValueError("brackets within brackets, too deep to read") from None


def _typed(kind: Any, plain: Any, at: str, special: Mapping[str, Callable[[Any], object]] | None = None) -> Any:
    if is_dataclass(kind):
        return _dataclass(kind, plain, at, special or {})
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (types.UnionType, Union):
        return _any_of(inner, plain, at)
    if origin is Literal:
        # 1 == True, so that the type counts too.
        fits = any(type(plain) is type(value) and plain == value for value in inner)
        return plain if fits else _refuse(plain, kind, at)
    if origin is list and isinstance(plain, list):
        return [_typed(inner[0], value, f"{at}.{i}") for i, value in enumerate(plain)]
    if origin is tuple and isinstance(plain, list):
        kinds = inner[:1] * len(plain) if inner[1:] == (...,) else inner
        if len(kinds) == len(plain):
            return tuple(_typed(kinds[i], value, f"{at}.{i}") for i, value in enumerate(plain))
    if origin in (dict, Mapping) and isinstance(plain, dict):
        return {_text(key, at): _typed(inner[1], value, f"{at}.{key}") for key, value in plain.items()}
    if kind is Any:
        return _anything(plain, at)
    return _single(kind, plain, at)


def _single(kind: Any, plain: Any, at: str) -> Any:
    if kind is str and isinstance(plain, str):
        return _text(plain, at)
    if kind is bool and isinstance(plain, bool):
        return plain
    if kind is types.NoneType and plain is None:
        return None
    if kind is float and isinstance(plain, (int, float)) and not isinstance(plain, bool):
        if abs(plain) <= sys.float_info.max:  # false for NaN, and for integers that no float holds
            return float(plain)
    elif kind is int and isinstance(plain, int) and not isinstance(plain, bool) and -_MOST <= plain < _MOST:
        return plain
    return _refuse(plain, kind, at)


def _any_of(kinds: tuple[Any, ...], plain: Any, at: str) -> Any:
    for kind in kinds[:-1]:
        try:
            return _typed(kind, plain, at)
        except ValueError:
            continue
    return _typed(kinds[-1], plain, at)


def _dataclass(kind: Any, plain: Any, at: str, special: Mapping[str, Callable[[Any], object]]) -> Any:
    kinds = _fields(kind)
    if not isinstance(plain, dict) or plain.keys() != kinds.keys():
        return _refuse(plain, kind, at)
    return kind(
        **{
            name: special[name](plain[name]) if name in special else _typed(each, plain[name], f"{at}.{name}")
            for name, each in kinds.items()
        }
    )


@cache
def _fields(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def _anything(plain: Any, at: str) -> Any:
    if isinstance(plain, dict):
        return _typed(dict[str, Any], plain, at)
    if isinstance(plain, list):
        return _typed(list[Any], plain, at)
    return _single(type(plain), plain, at)


def _text(plain: str, at: str) -> str:
    if not plain.isascii():
        try:
            plain.encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair, which no file can hold
            _refuse(plain, str, at)
    return plain


def _refuse(plain: Any, kind: Any, at: str) -> Any:
    shown = repr(plain) if isinstance(plain, (str, float, bool)) or plain is None else f"a {type(plain).__name__}"
    raise ValueError(f"{at.lstrip('.')[:100] or 'the whole'}: {shown[:60]} is no {getattr(kind, '__name__', kind)}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name}, which JSON has not")
