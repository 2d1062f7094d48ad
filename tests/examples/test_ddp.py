"""Under torchrun the example's command runs, and two processes end with the same weights, shaped by some masks."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from attribguard.data import Crosses
from examples import ddp as example

ROOT = Path(example.__file__).parents[1]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """What was printed, and what each of the two processes left; started once, which takes most of the time."""
    folder = tmp_path_factory.mktemp("ddp")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "tests.examples.ddp_worker", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    # To a file: a pipe would stay open as long as anything that torchrun started is alive.
    with (folder / "output").open("w") as output:
        started = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = started.wait(timeout=300)
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)  # its own session: torchrun and both processes
            status = started.wait()
    printed = (folder / "output").read_text("utf-8")
    assert status == 0, printed
    return printed, [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def test_torchrun_runs_the_command_and_one_process_prints(finished):
    printed, _ = finished
    assert re.search(r"2 processes, weights differ by 0; AUC: train \d\.\d+, test \d\.\d+", printed), printed
    assert printed.count("processes, weights differ") == 1


def test_both_processes_end_with_equal_weights_that_the_masks_have_shaped(finished):
    _, (first, second) = finished
    assert torch.equal(first["some"], second["some"]) and first["some"].isfinite().all()
    assert not torch.allclose(first["some"], first["none"], atol=1e-3)


def test_weights_that_differ_are_seen(finished):
    _, processes = finished
    assert [each["disagreement"] for each in processes] == pytest.approx([0.5, 0.5], abs=1e-6)


def test_images_without_a_mask_say_so():
    items = [example.PartlyAnnotated(Crosses("train", 4), 2)[i] for i in range(4)]
    assert [item[3].item() for item in items] == [True, True, False, False]
    assert [item[2].isnan().any().item() for item in items] == [False, False, True, True]
