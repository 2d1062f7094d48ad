import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from attribguard.cli.subject import load_model
from attribguard.errors import DataError, ModelError

MODULE = """
import torch
def network():
    return torch.nn.Linear(2, 2)
def nothing():
    return 5
def broken():
    raise KeyError("a line\\nand another")
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "subjects_of_mine.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_function_of_the_current_folder_gives_the_network(here):
    network = load_model("subjects_of_mine:network", None, 2, 1)
    assert isinstance(network, nn.Linear) and not network.training


def test_weights_are_loaded_also_as_a_trainer_writes_them(here):
    weights = {name: torch.full_like(value, 7.0) for name, value in nn.Linear(2, 2).state_dict().items()}
    torch.save(weights, "plain.pt")
    torch.save({"epoch": 3, "state_dict": {f"module.{name}": value for name, value in weights.items()}}, "trainer.pt")
    save_file(weights, "plain.safetensors")
    for file in ("plain.pt", "trainer.pt", "plain.safetensors"):
        network = load_model("subjects_of_mine:network", here / file, 2, 1)
        assert (network.weight == 7).all() and (network.bias == 7).all()


def test_a_timm_model_sees_standardised_images_in_any_number_of_channels(here):
    torch.manual_seed(0)
    inner = timm.create_model("test_resnet", num_classes=3, in_chans=1).eval()
    torch.save(inner.state_dict(), "weights.pt")
    network = load_model("test_resnet", here / "weights.pt", 3, 1)
    mean, std = (sum(inner.pretrained_cfg[key]) / 3 for key in ("mean", "std"))
    x = torch.rand(2, 1, 64, 64)
    assert torch.allclose(network(x), inner((x - mean) / std), atol=1e-5)


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_checkpoint_that_would_run_code_is_refused_and_not_run(here, capsys):
    torch.save({"state_dict": Evil()}, "evil.pt")
    (here / "plain.pkl").write_bytes(pickle.dumps(Evil(), 2))
    for file in ("evil.pt", "plain.pkl"):
        with pytest.raises(DataError, match="anything else may run code when it is loaded"):
            load_model("subjects_of_mine:network", here / file, 2, 1)
    assert "executed" not in capsys.readouterr().out


def test_a_file_that_is_no_checkpoint_of_this_network_is_refused(here):
    (here / "text.pt").write_text("hello")
    torch.save({"weight": torch.zeros(3, 3)}, "other.pt")
    for file, words in (("none.pt", "none.pt"), ("text.pt", "text.pt"), ("other.pt", "not this network's")):
        with pytest.raises(DataError, match=words):
            load_model("subjects_of_mine:network", here / file, 2, 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("subjects_of_mine:broken", r"raised KeyError: 'a line\\nand another'"),
        ("subjects_of_mine:nothing", "gave a int"),
        ("subjects_of_mine:missing", "raised AttributeError"),
        ("no.such.module:network", "raised ModuleNotFoundError"),
        ("test_resne", "such as test_resnet"),
    ],
)
def test_what_gives_no_network_is_one_line(here, name, words):
    with pytest.raises(ModelError, match=words) as error:
        load_model(name, None, 2, 1)
    assert "\n" not in str(error.value)
