"""Killed at any moment and started again, a training and an audit end as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from attribguard import checkpoint
from attribguard.auditing.progress_file import ProgressFile
from attribguard.checkpoint.checked_file import read_checked
from attribguard.cli import app
from examples import plain_loop
from tests.checkpoint.differences import differences
from tests.killed import finish, kill, stall_before_the_rename, stall_in_the_middle_of_writing, start
from tests.networks import plain_cnn

RUN = {"seed": 3, "weight": 10.0, "epochs": 6, "images": 160}  # 30 steps, with a checkpoint after each
STEPS = 30


def train(file, saved, stall=lambda: None, after=STEPS, life=0):
    """The example's own program; `saved` is called after each checkpoint, `stall` once after so many of them."""
    # The program draws from torch alone; what else is restored should not come out right by itself.
    random.seed(life)
    np.random.seed(life)  # noqa: NPY002
    real, count = checkpoint.save, 0

    def save(*args, **options):
        nonlocal count
        real(*args, **options)
        saved()
        count += 1
        if count == after:
            stall()

    checkpoint.save = save  # in this process, which is a fork
    plain_loop.main(**RUN, file=file, every=1)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The last checkpoint of a run that was left alone."""
    file = tmp_path_factory.mktemp("whole") / "run.ckpt"
    pid, _ = start(lambda tell: train(file, tell))
    assert finish(pid) == 0
    return file


def test_killed_at_20_points_the_example_ends_with_the_same_bits(tmp_path, uninterrupted):
    """Weights, optimizer, schedule, sampler and generators: the last checkpoints hold the same bits."""
    file, draw, steps = tmp_path / "run.ckpt", random.Random(0), []
    for number in range(20):
        stall = (None, stall_in_the_middle_of_writing, None, stall_before_the_rename)[number % 4]
        if stall is None:
            # After one or two steps, at a moment within the next: in its forward, its backward, or its checkpoint.
            saves = draw.choice((1, 1, 2)) if number < 19 else 1
            pid, told = start(lambda tell, life=number: train(file, tell, life=life))
            assert all(told() for _ in range(saves))
            time.sleep(draw.uniform(0, 0.08))
        else:
            pid, told = start(
                lambda tell, life=number, stall=stall: train(file, lambda: None, lambda: stall(tell), 1, life)
            )
            assert told()
        assert kill(pid) == -signal.SIGKILL
        steps.append(read_checked(file)["step"])
    assert steps == sorted(set(steps)) and steps[-1] < STEPS  # each life went on where the last one had come to
    pid, _ = start(lambda tell: train(file, tell, life=20))
    assert finish(pid) == 0
    assert differences(read_checked(file), read_checked(uninterrupted)) == []


def test_the_started_program_goes_on_after_sigkill(tmp_path, uninterrupted):
    file = tmp_path / "run.ckpt"
    options = [f"--{name}={value}" for name, value in RUN.items()]
    command = [sys.executable, "-m", "examples.plain_loop", *options, f"--checkpoint={file}", "--every=1"]
    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
    while not file.exists():
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 0 < read_checked(file)["step"] < STEPS
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("epoch ") and "\nAUC: train" in done.stdout
    ended, whole = read_checked(file), read_checked(uninterrupted)
    for state in (ended, whole):  # of numpy's and Python's generators, from which the program does not draw
        for numbers in (state["random"]["host"], state["parts"]["loader"]["start"]["host"]):
            del numbers["python"], numbers["numpy"]
    assert differences(ended, whole) == []


def reader():
    """The network that is audited."""
    torch.manual_seed(0)
    return plain_cnn()


def audit(out, added=lambda: None, stall=lambda: None, after=0):
    """Ten batches of an audit; `added` is called after the rows of each, `stall` once before those of one of them."""
    real, count = ProgressFile.add, 0

    def add(self, rows):
        nonlocal count
        if count == after:
            stall()
        real(self, rows)
        added()
        count += 1

    ProgressFile.add = add  # in this process, which is a fork
    options = ["--resume", "--images=40", "--batch-size=4"]
    with pytest.raises(SystemExit, match="0"):
        app(["audit", f"{__name__}:reader", "crosses", f"--out={out}", *options])


def test_killed_at_random_points_an_audit_ends_with_the_same_report(tmp_path):
    """While images are looked at, within a row, in the scan, within a report and before it is in its place."""
    pid, _ = start(lambda tell: audit(tmp_path / "whole"))
    assert finish(pid) == 0
    out, draw, rows = tmp_path / "out", random.Random(1), []
    for batches in (2, 0, 3):  # so many, and then at any moment of the next, or within one of its rows
        pid, told = start(lambda tell: audit(out, tell))
        assert all(told() for _ in range(batches))
        time.sleep(draw.uniform(0, 0.05))
        assert kill(pid) == -signal.SIGKILL
        pid, told = start(lambda tell: audit(out, stall=lambda: stall_in_the_middle_of_writing(tell)))
        assert told()
        assert kill(pid) == -signal.SIGKILL
        rows.append((out / "audit.rows.jsonl").read_bytes().count(b"\n"))
        assert not (out / "audit.json").exists()
    assert rows == sorted(rows) and 7 <= rows[-1] <= 41  # nothing was done twice
    left = 10 - (rows[-1] - 1) // 4
    pid, told = start(lambda tell: audit(out, tell))
    assert all(told() for _ in range(left))
    time.sleep(draw.uniform(0, 0.2))  # in the scan, or while concepts are counted
    assert kill(pid) == -signal.SIGKILL
    for stall in (stall_in_the_middle_of_writing, stall_before_the_rename):
        pid, told = start(lambda tell, stall=stall: (stall(tell), audit(out)))
        assert told()
        assert kill(pid) == -signal.SIGKILL
        assert not (out / "audit.json").exists()
    pid, _ = start(lambda tell: audit(out))
    assert finish(pid) == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert whole.keys() == {"audit.json", "audit.html"}
    assert {path.name: path.read_bytes() for path in out.iterdir()} == whole
