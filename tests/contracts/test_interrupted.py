"""Killed at any moment and started again, a training and an audit end as if nothing had happened."""

import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from attribguard import checkpoint
from attribguard.checkpoint.checked_file import read_checked
from examples import plain_loop
from tests.checkpoint.differences import differences
from tests.killed import finish, kill, stall_before_the_rename, stall_in_the_middle_of_writing, start

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
