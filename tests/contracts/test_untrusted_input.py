"""Damaged files in every reader: only the library's errors, an end, little memory, and nothing opened outside or run.

The long run is `python -m tests.contracts.fuzz --inputs 100000 --minutes 10`; here each reader gets a bounded number.
"""

import contextlib
import os
import pickle
import signal
import threading

import numpy as np
import pytest

from attribguard.errors import DataError
from tests.contracts.fuzz.mutations import damaged, seeded
from tests.contracts.fuzz.readers import READERS
from tests.contracts.fuzz.run import Bench, fuzz
from tests.contracts.fuzz.watch import watched

INPUTS = 150

needs_signals = pytest.mark.skipif(
    not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread(),
    reason="the alarm needs the signals of the main thread",
)


@needs_signals
@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name.replace(" ", "-"))
def test_damaged_files_are_read_or_refused_and_do_no_harm(reader, tmp_path):
    bench = Bench(reader, tmp_path)
    assert bench.read_valid()[:2] == ("accepted", "")
    tally = fuzz([bench], INPUTS, seconds=600)[reader.name]
    assert tally.failures == []
    assert tally.inputs == INPUTS == tally.accepted + tally.refused


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.name.replace(" ", "-"))
def test_inputs_are_the_same_again_differ_from_each_other_and_from_the_valid_files(reader, tmp_path):
    bench = Bench(reader, tmp_path)
    made = [bench.make(0, number) for number in range(30)]
    assert made == [bench.make(0, number) for number in range(30)]
    assert made != [bench.make(1, number) for number in range(30)]
    assert len(set(made)) > 20 and sum(bench.valid[name] != content for name, content in made) > 25


@pytest.mark.parametrize("name", ["a.bin", "a.json", "a.csv", "a.png", "a.gz", "a.npz", "a.pt", "a.jsonl"])
def test_content_without_the_structure_of_its_ending_is_damaged_all_the_same(name):
    made = {damaged(name, content, [], seeded(0, number)) for number in range(40) for content in (b"", b"\xff\0x")}
    assert len(made) > 20


def crash(folder):
    {}["no such key"]


def hang(folder):
    while True:
        with contextlib.suppress(Exception):
            pass


def hoard(folder):
    np.ones(2**26)


def climb(folder):
    (folder / "link" / "secret").read_bytes()


def look_around(folder):
    os.listdir(folder.parent / "outside")


def run_a_program(folder):
    pickle.loads(pickle.dumps(Evil()))


def warn(folder):
    exec(compile("import warnings; warnings.warn('odd')", "x", "exec"), {"__name__": "attribguard.odd"})


class Evil:
    def __reduce__(self):
        return os.getpid, ()


@needs_signals
@pytest.mark.parametrize(
    ("read", "words"),
    [
        (crash, "KeyError: 'no such key'"), (hang, "no end after 0.2 s of"), (hoard, "MB of memory"),
        (climb, "opened "), (look_around, "opened "), (run_a_program, "pickle.find_class"), (warn, "UserWarning: odd"),
    ],
)  # fmt: skip
def test_harness_sees_each_kind_of_harm(read, words, tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("x")
    (tmp_path / "data" / "link").symlink_to(tmp_path / "outside")
    outcome, failure, _ = watched(read, tmp_path / "data", (tmp_path / "outside").resolve(), 0.2, 256)
    assert outcome == "failed" and words in failure


@needs_signals
def test_harness_counts_what_was_accepted_and_what_was_refused(tmp_path):
    (tmp_path / "data").mkdir()

    def refuse(folder):
        raise DataError(got="a", needed="b", fix="c")

    assert watched(refuse, tmp_path / "data", tmp_path / "outside")[:2] == ("refused", "got a; needed b; c")
    assert watched(lambda folder: None, tmp_path / "data", tmp_path / "outside")[:2] == ("accepted", "")
