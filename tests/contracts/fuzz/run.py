"""Runs the readers over damaged files and counts what became of them."""

import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from tests.contracts.fuzz.mutations import damaged, seeded
from tests.contracts.fuzz.watch import watched

LINK = ".out"  # in every folder, to what lies outside of it; lists of files leave out names that begin with a dot


@dataclass
class Tally:
    """What became of the inputs of one reader."""

    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    megabytes: float = 0.0
    failures: list[tuple[int, str, str]] = field(default_factory=list)

    def count(self, number, file, outcome, words, megabytes):
        self.inputs += 1
        self.accepted += outcome == "accepted"
        self.refused += outcome == "refused"
        self.megabytes = max(self.megabytes, megabytes)
        if outcome == "failed":
            self.failures.append((number, file, words))


class Bench:
    """One reader, its valid folder, and a folder outside that it must not touch.

    Args:
        reader: the reader.
        base: an empty folder.
    """

    def __init__(self, reader, base):
        self.reader, self.folder, self.outside = reader, base / "data", (base / "outside").resolve()
        self.folder.mkdir(parents=True)
        reader.write(self.folder)
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        self.valid = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in files}
        self.outside.mkdir()
        for name, content in self.valid.items():
            (self.outside / f"secret{Path(name).suffix}").write_bytes(content)
        for path in (self.folder, *(path for path in self.folder.rglob("*") if path.is_dir())):
            (path / LINK).symlink_to(self.outside)
        self._alike = defaultdict(list)
        for name, content in self.valid.items():
            self._alike[Path(name).suffix].append(content)

    def read_valid(self):
        """The folder as it was written: nothing in it is damaged."""
        return watched(self.reader.read, self.folder, self.outside)

    def make(self, seed, number):
        """The file that input `number` damages, and its content."""
        rng = seeded(f"{self.reader.name}/{seed}", number)
        name = rng.choice(list(self.valid))
        return name, damaged(name, self.valid[name], self._alike[Path(name).suffix], rng)

    def read_damaged(self, name, content):
        """Reads the folder with one file of it exchanged, and mends it again."""
        path = self.folder / name
        try:
            path.write_bytes(content)
            return watched(self.reader.read, self.folder, self.outside)
        finally:
            path.write_bytes(self.valid[name])


def fuzz(benches, inputs, seconds, seed=0, keep=None):
    """Damages files of each reader in turn until there were so many inputs, or so much time has passed.

    Args:
        benches: of the readers.
        inputs: in all.
        seconds: in all.
        seed: another one damages otherwise.
        keep: a folder for the files that were no good, or `None`.

    Returns:
        A tally by the reader's name.
    """
    tallies = {bench.reader.name: Tally() for bench in benches}
    end = time.monotonic() + seconds
    for number in range(inputs):
        if time.monotonic() > end:
            break
        bench = benches[number % len(benches)]
        name, content = bench.make(seed, number)
        outcome, words, megabytes = bench.read_damaged(name, content)
        tallies[bench.reader.name].count(number, name, outcome, words, megabytes)
        if outcome == "failed" and keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            (keep / f"{number}-{Path(name).name}").write_bytes(content)
    return tallies
