"""The same seed gives the same bits on a CPU: in another process, and with or without workers that load the data."""

import hashlib
import json
import os
import random
import subprocess
import sys
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

import attribguard as ag
from attribguard.data import Crosses, augment
from tests.heads.small import both, strided


class Augmented(Dataset):
    """Crosses, each turned in its own way: draws that depend on the image alone, not on who loads it."""

    def __init__(self):
        self.crosses = Crosses("train", 16, seed=2)

    def __len__(self):
        return len(self.crosses)

    def __getitem__(self, index):
        x, y, mask = self.crosses[index]
        x, mask = augment(x, mask, generator=torch.Generator().manual_seed(index))
        return x, y, mask


def every_penalty():
    attributions = (ag.InputGradient(), ag.GradientTimesInput(), ag.IntegratedGradients(2), ag.ExpectedGradients(2))
    return [
        *(ag.ActDiff(1.0, corruption=mode, name=f"actdiff_{mode}") for mode in ("shuffle", "zero", "mean", "blur")),
        ag.GradMask(0.1),
        ag.RRR(0.1),
        ag.GradCAMRRR(0.1, cam="hirescam", score="projection"),
        *(ag.AttributionPenalty(0.1, each, name=f"attribution_{n}") for n, each in enumerate(attributions)),
    ]


def network(seed=4):
    torch.manual_seed(seed)
    return nn.Sequential(strided(norm=True), nn.Dropout(0.3), nn.Linear(2, 2))


def batches(workers, shuffle=True):
    return DataLoader(Augmented(), batch_size=8, shuffle=shuffle, num_workers=workers)


def training(workers, seed=4):
    """Losses, terms and weights after two epochs with everything that a guard has."""
    guard = ag.wrap(
        network(seed), penalties=every_penalty(), heads=both(), weighting=ag.GradNorm(), example_input=(1, 28, 28)
    )
    optimizer, trail = torch.optim.Adam(guard.parameters(), lr=0.01), []
    for _ in range(2):
        for x, y, mask in batches(workers):
            optimizer.zero_grad()
            out = guard(x, y, mask=mask, segmentation=(mask[:, 0] > 0.5).long())
            out.loss.backward()
            optimizer.step()
            trail += [out.loss.item(), *map(float, out.terms.values()), *map(float, out.weights.values())]
    weights = b"".join(value.numpy().tobytes() for value in guard.state_dict().values())
    return [*map(float.hex, trail), hashlib.sha256(weights).hexdigest()]


def audit(workers):
    """All that a report holds, pictures included."""
    return json.dumps(asdict(ag.audit(network(), batches(workers, shuffle=False))))


def scan(workers):
    """A scan of images as a loader gives them."""
    model = network()
    model[2].bias.data[0] += 1  # of which the network says that they are of class 0
    images = torch.cat([x for x, *_ in batches(workers)])
    found = ag.probes.patch_swap_scan(
        model, images[:8], images[8:], source_class=0, patch_size=7, passes=5, progress=False
    )
    return found.to_json()


RUNS = {run.__name__: run for run in (training, audit, scan)}


@pytest.fixture(scope="module")
def elsewhere():
    """What another process finds, with two workers: its sets have another order, and its draws another past."""
    environment = os.environ | {"PYTHONHASHSEED": "77", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.contracts.test_determinism"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def here():
    return {name: run(0) for name, run in RUNS.items()}


@pytest.mark.parametrize("name", RUNS)
def test_again_in_this_process_it_gives_the_same_bits(here, name):
    random.seed(8), np.random.seed(8)  # noqa: NPY002  # whoever draws from these would show
    assert RUNS[name](0) == here[name]


@pytest.mark.parametrize("name", RUNS)
def test_in_another_process_with_two_workers_it_gives_the_same_bits(here, elsewhere, name):
    assert elsewhere[name] == here[name]


def test_another_seed_gives_other_numbers(here):
    """Or the tests above would hold of anything."""
    other = training(0, seed=5)
    assert len(other) == len(here["training"]) and other[0] != here["training"][0] and other[-1] != here["training"][-1]


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(json.dumps({name: run(2) for name, run in RUNS.items()}))
