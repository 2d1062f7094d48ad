import numpy as np
import pytest
import torch

from attribguard.data import DECOY_CELLS
from attribguard.errors import DataError
from attribguard.probes import scan_classes
from attribguard.reproduce import RECIPES, Run
from attribguard.reproduce.training import decoy_fashion
from attribguard.reproduce.training.decoy_fashion import PENALTIES, train_decoy_row
from examples import decoy_fashion as example
from tests.data.idx_files import write_fashion

CPU = torch.device("cpu")
RECIPE = RECIPES["decoy-fashion"]
SMALL = {"images": 200, "valid": 50, "sneakers": 8, "shirts": 3, "passes": 4}
SMALL |= {"scan_sources": 8, "scan_targets": 2, "scan_passes": 2, "batch_size": 50, "first_epochs": 8, "epochs": 1}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Ten textures that a network learns at once, by class."""
    rng = np.random.default_rng(0)
    textures = rng.integers(0, 2, (10, 28, 28)) * 90
    parts = []
    for n in (350, 200):
        labels = np.arange(n) % 10
        images = (textures[labels] * rng.uniform(0.2, 1, (n, 1, 1)) + rng.integers(0, 60, (n, 28, 28))).astype(np.uint8)
        parts.append((images, labels.astype(np.uint8)))
    return write_fashion(tmp_path_factory.mktemp("data") / "fashion", *parts)


@pytest.fixture
def train(folder, monkeypatch):
    monkeypatch.setattr(decoy_fashion, "_HELD_OUT", 250)

    def run(name, final=True, seed=0, **settings):
        row = RECIPE.row(name)
        settings = {**RECIPE.sizes["default"].settings, **row.settings, **SMALL, **settings}
        return train_decoy_row(Run(settings, seed, final, folder, CPU))

    return run


def test_plain_training_gives_accuracies_and_the_scan(train):
    result = train("cross entropy")
    assert set(result.metrics) == {"valid", "own", "other", "clean", "drop", "elsewhere", "named"}
    assert result.metrics["own"] > 0.9 and 0 <= result.metrics["named"] <= 1
    assert result.metrics["valid"] == min(values[-1] for values in result.curves.values())


def test_a_search_measures_validation_images_alone(train):
    assert set(train("RRR on inputs", final=False, weight=0.1).metrics) == {"valid"}


@pytest.mark.parametrize("method", PENALTIES)
@pytest.mark.filterwarnings("ignore:.*is blind")
def test_every_penalty_trains(train, method):
    assert len(train("RRR on inputs", final=False, method=method).curves["valid own"]) == 1


def test_fine_tuning_starts_from_one_network_and_leaves_it_as_it_was(train):
    first = train("cross entropy")
    train("trained on without a penalty", final=False, lr=0.1)
    assert train("cross entropy") == first


def test_the_scan_row_trains_in_rounds_and_counts_what_it_found(train, monkeypatch):
    found = torch.ones(1, 1, 28, 28)
    found[..., :4, :4] = 0  # the decoy of class 0
    found[..., 12:16, 12:16] = 0  # no decoy: cell 24
    monkeypatch.setattr(decoy_fashion, "_places_found", lambda *_: found)
    result = train("HiResCAM of a projection, places found by a scan", final=False)
    assert 0 in DECOY_CELLS and 24 not in DECOY_CELLS
    assert (result.metrics["places"], result.metrics["false places"]) == (1, 1)
    assert len(result.curves["valid own"]) == 2


def test_the_scan_runs_on_validation_images(train, monkeypatch):
    asked = []

    def scan(network, items, **options):
        asked.append(items)
        return scan_classes(network, items, pairs=[(0, 1), (1, 0)], **options)

    monkeypatch.setattr(decoy_fashion, "scan_classes", scan)
    result = train("HiResCAM of a projection, places found by a scan", final=False, valid=100, rounds=1)
    assert [len(items) for items in asked] == [100]
    assert result.metrics["places"] + result.metrics["false places"] <= 49


def test_without_held_out_images_nothing_is_measured_on_them(train):
    result = train("no decoys in training", images=300)
    assert "valid" not in result.metrics and result.curves == {}


def test_a_folder_without_the_files_is_refused(tmp_path):
    settings = {**RECIPE.sizes["default"].settings, **RECIPE.rows[0].settings}
    with pytest.raises(DataError, match="Fashion-MNIST"):
        train_decoy_row(Run(settings, 0, True, tmp_path, CPU))


def test_network_and_penalties_are_those_of_the_example():
    assert repr(decoy_fashion.decoy_network()) == repr(example.paper_network())
    for name, penalty in (
        ("HiResCAM of a projection", example.hirescam_rrr()),
        ("Eq. 2", example.eq2(100.0)),
        ("Eq. 2 in code", example.eq2_code(100.0)),
    ):
        ours, theirs = (
            {key: value for key, value in vars(each).items() if not key.startswith("_")}
            for each in (PENALTIES[name](100.0), penalty)
        )
        assert ours == theirs and PENALTIES[name](100.0).weight == penalty.weight
