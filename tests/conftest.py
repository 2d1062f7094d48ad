"""What every test shares: one thread a process, the hypothesis profile, the shared data folder."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"

# Under `pytest -n 2` every process would otherwise start one thread a core, and the two would fight for them.
torch.set_num_threads(1)

# "ci" always draws the same examples, so that a failure is the change's and not the draw's.
# HYPOTHESIS_PROFILE=thorough looks for new ones.
settings.register_profile("ci", max_examples=50, deadline=None, derandomize=True)
settings.register_profile("thorough", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture(autouse=True)
def _seeded():
    """Every test starts from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def shared_data():
    """The data folder beside the checkout, `../shared/data`."""
    if not DATA.is_dir():
        pytest.skip("no ../shared/data beside this checkout")
    return DATA


@pytest.fixture(scope="session")
def actdiff_synth(shared_data):
    """The ActDiff authors' own crosses: `distractor1.npz` to `distractor3.npz`."""
    return _folder(shared_data, "actdiff-synth")


@pytest.fixture(scope="session")
def fashion_mnist(shared_data):
    """Fashion-MNIST's own four files."""
    return _folder(shared_data, "fashion-mnist")


def _folder(data, name):
    if not (data / name).is_dir():
        pytest.skip(f"no ../shared/data/{name} beside this checkout")
    return data / name
