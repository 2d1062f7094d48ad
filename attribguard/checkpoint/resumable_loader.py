"""A data loader that goes on within an epoch, with the images that an interrupted one had not given yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sized
from typing import Any

import torch

from attribguard.checkpoint.random_states import host_states, restore_host_states
from attribguard.errors import DataError

__all__ = ["ResumableLoader"]

_END: Any = object()


class ResumableLoader:
    """Any loader, and how far it has come. Hand it to :func:`~attribguard.checkpoint.save` under a name of your choice.

    The first pass after :func:`~attribguard.checkpoint.load` goes back to the random state in which the interrupted
    epoch began, runs the loader from there, drops the batches that were given before, and puts the random state of the
    checkpoint back. So the order is the same whatever sampler draws it, and so are random augmentations, whether the
    loader has workers or not. The batches that are dropped are loaded once more, which costs at most one epoch of
    reading.

    Two things nobody can go back to: the random state of ``persistent_workers``, which outlives an epoch (leave them
    off where the data set draws at random), and an order that is drawn on the way, between the steps of the training
    (torch's own samplers draw theirs when the epoch starts).

    Args:
        loader: a ``DataLoader``, or whatever gives an epoch of batches each time it is iterated over. What prefetches
            or prepares batches belongs inside.
        generators: from which order or data are drawn beside the global ones; the loader's and its sampler's own are
            found.

    Attributes:
        loader: the loader.
        epoch: the number of epochs that are over; an epoch that the loop breaks off is.
        done: the number of batches given in this epoch.

    Example:
        >>> loader = ResumableLoader(torch.utils.data.DataLoader(torch.arange(6), batch_size=2, shuffle=True))
        >>> batches = iter(loader)
        >>> first, state = next(batches), loader.state_dict()
        >>> rest = list(batches)
        >>> loader.load_state_dict(state)
        >>> torch.equal(torch.cat(list(loader)), torch.cat(rest))
        True
    """

    def __init__(self, loader: Iterable[Any], generators: Iterable[torch.Generator] = ()) -> None:
        self.loader, self.epoch, self.done = loader, 0, 0
        batch_sampler = getattr(loader, "batch_sampler", None)
        places = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
        found = [getattr(place, "generator", None) for place in places]
        known = {id(each): each for each in (*found, *generators) if isinstance(each, torch.Generator)}
        self._generators = list(known.values())
        self._start: dict[str, Any] = {}
        self._skip, self._turn = 0, 0

    def __len__(self) -> int:
        """Batches an epoch, where the loader knows."""
        return len(self.loader)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        """The batches of an epoch; in the first one after a state was loaded, those that are left."""
        skip, self._skip = self._skip, 0
        self._turn += 1
        turn, now = self._turn, self._states()
        if skip:
            self._restore(self._start)
        else:
            self._start, self.done = now, 0
        batches = iter(self.loader)
        if skip:
            for _ in range(skip):
                if next(batches, _END) is _END:
                    raise DataError(
                        got=f"a loader that ends before its batch {skip}, up to which the interrupted run had come",
                        needed="the same data",
                        fix="start anew",
                    )
            self._restore(now)
        try:
            for batch in batches:
                self.done += 1
                yield batch
        finally:
            # Unless a state was loaded meanwhile, at which the next pass starts.
            if turn == self._turn:
                self.epoch, self.done = self.epoch + 1, 0

    def state_dict(self) -> dict[str, Any]:
        """Where it is: tensors and plain values."""
        return {
            "epoch": self.epoch,
            "done": self.done,
            "length": self._length(),
            "start": self._start if self.done else {},
            "generators": [generator.get_state() for generator in self._generators],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there with the next pass.

        Args:
            state: as :meth:`state_dict` gave it.

        Raises:
            DataError: if it is another loader's.
        """
        ours = {"batches an epoch": self._length(), "generators": len(self._generators)}
        theirs = {"batches an epoch": state["length"], "generators": len(state["generators"])}
        for what, number in ours.items():
            if theirs[what] != number:
                raise DataError(
                    got=f"the position in a loader with {theirs[what]} {what}",
                    needed=f"one with {number}",
                    fix="build the same loader over the same data",
                )
        self.epoch, self.done, self._start, self._skip = state["epoch"], state["done"], state["start"], state["done"]
        self._turn += 1
        for generator, value in zip(self._generators, state["generators"], strict=True):
            generator.set_state(value)

    def _length(self) -> int | None:
        try:
            return len(self.loader) if isinstance(self.loader, Sized) else None
        except TypeError:  # a DataLoader over an iterable data set, which has the method and no answer
            return None

    def _states(self) -> dict[str, Any]:
        return {"host": host_states(), "generators": [generator.get_state() for generator in self._generators]}

    def _restore(self, states: dict[str, Any]) -> None:
        restore_host_states(states["host"])
        for generator, value in zip(self._generators, states["generators"], strict=True):
            generator.set_state(value)
