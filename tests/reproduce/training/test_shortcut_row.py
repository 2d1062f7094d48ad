import pytest
import torch

from attribguard.errors import RangeError
from attribguard.reproduce import RECIPES, Run
from attribguard.reproduce.training import shortcut_row
from attribguard.reproduce.training.shortcut_row import METHODS, train_shortcut_row

CPU = torch.device("cpu")
SETTINGS = {
    **RECIPES["actdiff-synthetic"].sizes["default"].settings,
    "data": "crosses",
    "network": "CNN",
    "method": "classify",
    "train": 48,
    "valid": 16,
    "test": 16,
    "channels": 2,
    "epochs": 1,
    "epochs ResNet": 1,
    "weight": 1.0,
}


def outcome(final=True, seed=0, **settings):
    torch.manual_seed(seed)
    return train_shortcut_row(Run({**SETTINGS, **settings}, seed, final, None, CPU))


def test_a_row_gives_every_figure_of_its_table_and_a_curve_of_its_epochs():
    result = outcome(epochs=2)
    assert set(result.metrics) >= {*RECIPES["actdiff-synthetic"].metrics, "score", "valid"}
    assert all(0 <= value <= 1 for value in result.metrics.values())
    assert len(result.curves["valid"]) == 2 and result.curves["valid"][-1] == result.metrics["valid"]
    assert result.metrics["score"] == min(result.metrics["train"], result.metrics["valid"])


def test_a_search_measures_no_test_images():
    assert set(outcome(final=False).metrics) == {"train", "valid", "score"}


@pytest.mark.parametrize("network", ["CNN", "ResNet", "ConvAE", "UNet"])
@pytest.mark.parametrize("method", ["ActDiff & GradMask", "reconstruct masked"])
def test_every_network_trains(network, method):
    outcome(final=False, network=network, method=method, train=32)


def test_the_same_seed_gives_the_same_figures_and_another_one_others():
    first, again, other = outcome(), outcome(), outcome(seed=1)
    assert first == again and first != other


@pytest.mark.parametrize("name", ["actdiff-organs", "xray-sites"])
def test_the_drawn_tables_give_their_own_figures(name):
    recipe = RECIPES[name]
    small = {"train": 16, "valid": 8, "test": 8, "size": 32, "epochs": 1, "channels": 2, "network": "CNN"}
    row = recipe.rows[1]
    settings = {**recipe.sizes["default"].settings, **row.settings, **small}
    result = recipe.train(Run(settings, 0, True, None, CPU))
    assert set(result.metrics) >= set(recipe.metrics)
    cells = torch.tensor(result.maps["saliency"])  # 1 in a cell is an even share
    assert cells.shape == (32, 32) and cells.min() >= 0 and cells.mean().item() == pytest.approx(1, abs=1e-4)


@pytest.fixture
def shown(monkeypatch):
    """The images that a training was given: of the training, of validation and of the test."""
    seen, real = [], shortcut_row.auc

    def fit(guard, loss, data, *, after_epoch, **options):
        seen.append(data)
        after_epoch()

    def auc(guard, data, device):
        seen.append(data)
        return real(guard, data, device)

    monkeypatch.setattr(shortcut_row, "fit", fit)
    monkeypatch.setattr(shortcut_row, "auc", auc)
    return seen


HIDDEN = {
    "classify": [],
    "ActDiff": [],
    "classify masked": ["train"],
    "masked throughout": ["train", "valid", "test"],
}


@pytest.mark.parametrize(("method", "hidden"), HIDDEN.items())
def test_only_the_masked_methods_hide_the_outside_and_only_where_they_say(shown, method, hidden):
    outcome(method=method, dilate=0)
    train, valid, _, test = shown
    for name, part in (("train", train), ("valid", valid), ("test", test)):
        outside = (part.tensors["image"] * (1 - part.tensors["mask"])).sum() > 0
        assert bool(outside) == (name not in hidden)


def test_an_unknown_method_is_refused():
    with pytest.raises(RangeError, match="method='pray'"):
        outcome(method="pray")


def test_the_penalties_of_a_method_carry_its_weight():
    assert {name: [p.weight for p in make(3.0)] for name, make in METHODS.items() if make(3.0)} == {
        "ActDiff": [3.0],
        "GradMask": [3.0],
        "ActDiff & GradMask": [3.0, 3.0],
    }
