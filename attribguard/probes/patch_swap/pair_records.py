"""A file of JSON lines, one for each pair of classes that was scanned, so that a run can be interrupted."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from attribguard.errors import DataError
from attribguard.plain_data import parse_json, read_regular, typed
from attribguard.probes.patch_swap.class_scan import PairScan
from attribguard.whole_files import cut_half_line

__all__ = ["Fingerprint", "PairRecords"]

_START = b'{"key": '  # of every line


class Fingerprint:
    """What two runs must have in common for one to go on with the other's results.

    Args:
        model: the network, whose parameters and buffers count.
        options: of the scan.
    """

    def __init__(self, model: nn.Module, options: Mapping[str, object]) -> None:
        self._digest = hashlib.sha256(json.dumps(options, sort_keys=True).encode())
        for tensor in model.state_dict().values():
            self._digest.update(_bytes(tensor))

    def of(self, images: Iterable[Tensor]) -> str:
        """Of one pair of classes.

        Args:
            images: all that are scanned.

        Returns:
            16 hexadecimal digits.
        """
        digest = self._digest.copy()
        for image in images:
            digest.update(_bytes(image))
        return digest.hexdigest()[:16]


class PairRecords:
    """The pairs that are done.

    Args:
        path: the file, or ``None`` to keep nothing. The rest of an interrupted line is taken off it.

    Raises:
        DataError: if it holds something else.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._done: dict[tuple[int, int], tuple[str, PairScan]] = {}
        if path is None:
            return
        if path.is_dir() or not path.parent.is_dir():
            raise DataError(got=f"path={str(path)!r}", needed="a file in a folder that exists", fix="make the folder")
        try:
            content = read_regular(path) if path.exists() else b""
        except OSError as error:
            raise self._bad(error) from error
        *lines, torn = content.split(b"\n")
        for line in lines:
            key, pair = self._read(line)
            self._done[pair.source_class, pair.target_class] = key, pair
        if torn[: len(_START)] != _START[: len(torn)]:  # it may be anything, and not be ours to cut
            raise self._bad(ValueError("its end"))
        cut_half_line(path)

    def find(self, source_class: int, target_class: int, key: str) -> PairScan | None:
        """A pair that was scanned before.

        Args:
            source_class: of the pair.
            target_class: of the pair.
            key: of this run, as :class:`Fingerprint` gives it.

        Returns:
            What was found then, or ``None``.

        Raises:
            DataError: if another network, or other images or options, were scanned.
        """
        known, pair = self._done.get((source_class, target_class), (key, None))
        if known != key:
            raise DataError(
                got=f"{self._path}, written for another network, other images or other options",
                needed="the file of an earlier run of the same scan",
                fix="name another file",
            )
        return pair

    def add(self, pair: PairScan, key: str) -> None:
        """Write a pair down at once.

        Args:
            pair: what was found.
            key: of this run.
        """
        if self._path is not None:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, **dataclasses.asdict(pair)}) + "\n")

    def _read(self, line: bytes) -> tuple[str, PairScan]:
        try:
            values = typed(dict[str, Any], parse_json(line))
            key, pair = typed(str, values.pop("key", None)), typed(PairScan, values)
            if len(pair.p_values) != (0 if pair.untested else len(pair.drop)):
                raise ValueError(f"{len(pair.p_values)} p values for {len(pair.drop)} positions")
            return key, pair
        except ValueError as error:
            raise self._bad(error) from error

    def _bad(self, error: Exception) -> DataError:
        return DataError(
            got=f"{self._path} with a line that is no pair's ({error})",
            needed="a file that an earlier scan_classes wrote",
            fix="name another file",
        )


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
