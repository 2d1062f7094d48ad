"""Probes that are no metrics measure a process's own share, whatever the others do, and wait for nobody."""

import numpy as np
import pytest
import torch
from torch import nn

import attribguard as ag
from attribguard.probes.patch_swap import patch_swap_scan
from attribguard.probes.task_similarity import task_similarity
from tests.heads.small import SHAPE, annotated_batch, both, strided
from tests.two_processes import run_two

# How many batches each of the two processes has.
SHARES = (3, 1)


def batches(rank):
    torch.manual_seed(rank)
    for _ in range(SHARES[rank]):
        x, y, mask, segmentation = annotated_batch(4)
        yield {"x": x, "target": y, "mask": mask, "segmentation": segmentation}


def guards():
    """Two; without a criterion a guard knows of other processes, and only the penalty reads the last layers."""
    made = {}
    for name, options in {"heads": {"criterion": "none"}, "all": {"weighting": ag.GradNorm()}}.items():
        torch.manual_seed(0)
        model = nn.Sequential(*strided()[:-1], nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        penalties = [ag.ActDiff(5.0, corruption="zero")]
        made[name] = ag.wrap(model, heads=both(), penalties=penalties, example_input=SHAPE, **options)
    return made


def scan(rank):
    torch.manual_seed(2 + rank)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 2))
    sources = torch.rand(3 + SHARES[rank], 1, 8, 8)
    return patch_swap_scan(model, sources, torch.rand(2, 1, 8, 8), source_class=_class(model, sources))


def _class(model, sources):
    """The class that most of the sources are given."""
    return int(model.eval()(sources).argmax(1).mode().values)


def measure(rank):
    found = task_similarity(guards(), batches(rank), evaluating=False)
    cosines = {name: (part.terms, part.mean, part.error) for name, part in found.gradients.items()}
    swapped = scan(rank)
    return found.images, cosines, found.cka, (swapped.certainty, swapped.baseline)


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    return run_two(measure, folder=tmp_path_factory.mktemp("two"))


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_measures_the_tasks_of_its_own_share(two_processes, rank):
    images, cosines, cka, _ = measure(rank)
    ours_images, ours, ours_cka, _ = two_processes[rank]
    assert ours_images == images == 4 * SHARES[rank]
    np.testing.assert_allclose(ours_cka, cka, atol=1e-6)
    for name, (terms, mean, error) in cosines.items():
        assert ours[name][0] == terms
        np.testing.assert_allclose(ours[name][1], mean, atol=1e-5)
        np.testing.assert_allclose(ours[name][2], error, atol=1e-5)


@pytest.mark.parametrize("rank", [0, 1])
def test_each_process_scans_its_own_sources(two_processes, rank):
    for ours, expected in zip(two_processes[rank][-1], measure(rank)[-1], strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-6)
