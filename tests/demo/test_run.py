import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from attribguard.data import Crosses
from attribguard.demo import Settings, run_demo
from attribguard.demo.splits import load_splits
from attribguard.errors import AttribGuardError, DataError, RangeError

QUICK = Settings(train_images=16, valid_images=6, test_images=8, channels=1, epochs=1)
SCORES = {"train_auc", "valid_auc", "test_auc", "inside"}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """One small run: its result and its folder."""
    out = tmp_path_factory.mktemp("demo") / "new" / "folder"
    return run_demo(out, settings=QUICK), out


def test_the_result_file_holds_what_was_returned_and_nothing_else(quick):
    result, out = quick
    written = json.loads((out / "result.json").read_text("utf-8"))
    assert set(written) == {"baseline", "guarded", "seconds", "seed", "data", "settings"}
    for name in ("baseline", "guarded"):
        assert set(written[name]) == SCORES
        assert all(0 <= written[name][key] <= 1 for key in SCORES)
        assert written[name] == {key: getattr(getattr(result, name), key) for key in SCORES}
    assert written["seconds"] > 0
    assert (written["seed"], written["data"]) == (0, "generated")
    assert written["settings"]["test_images"] == 8 and written["settings"]["weight"] == 10.0


def test_the_picture_shows_two_images_of_each_class(quick):
    image = Image.open(io.BytesIO((quick[1] / "saliency.png").read_bytes()))
    image.load()
    assert (image.format, image.width) == ("PNG", 1200)
    assert image.height == 305 + 4 * 322 + 205


def test_nothing_but_the_three_files_is_written(quick):
    assert sorted(path.name for path in quick[1].iterdir()) == ["audit.html", "result.json", "saliency.png"]


def test_the_page_is_of_both_networks(quick):
    page = (quick[1] / "audit.html").read_text("utf-8")
    assert "Audit of the network with ActDiff" in page and "Baseline: the network trained plain" in page


def test_the_same_seed_gives_the_same_figures_and_another_seed_others(quick, tmp_path):
    torch.rand(3)
    again = run_demo(tmp_path, settings=QUICK)
    assert (again.baseline, again.guarded) == (quick[0].baseline, quick[0].guarded)
    assert (tmp_path / "saliency.png").read_bytes() == (quick[1] / "saliency.png").read_bytes()
    assert run_demo(tmp_path, settings=QUICK, seed=1).guarded != again.guarded


def test_the_global_random_state_is_left_alone(tmp_path):
    state = torch.get_rng_state()
    run_demo(tmp_path, settings=QUICK)
    assert torch.equal(torch.get_rng_state(), state)


def test_both_trainings_are_told_of(tmp_path):
    told = []
    run_demo(tmp_path, settings=QUICK, on_step=lambda *step: told.append(step))
    assert told == [("baseline", 1, 1), ("guarded", 1, 1)]


def test_the_seed_reaches_the_training_also_on_the_same_images(tmp_path, monkeypatch):
    images = load_splits(None, (16, 6, 8), seed=0)
    monkeypatch.setattr("attribguard.demo.run.load_splits", lambda *_: images)
    assert run_demo(tmp_path, settings=QUICK).guarded != run_demo(tmp_path, settings=QUICK, seed=1).guarded


def test_the_settings_of_a_run_on_files_name_the_numbers_of_images_used(tmp_path):
    for number in (1, 2, 3):
        crosses = Crosses("train", 24)
        image, mask = (tensor[:, 0].byte().numpy() for tensor in (255 * crosses.images, crosses.masks))
        np.savez(tmp_path / f"distractor{number}.npz", image=image, mask=mask, label=crosses.targets.numpy())
    result = run_demo(tmp_path / "out", data=tmp_path, settings=QUICK)
    settings = result.settings
    assert (settings.train_images, settings.valid_images, settings.test_images) == (16, 24, 24)
    assert result.data == str(tmp_path)


@pytest.mark.parametrize("when", [("baseline", 1), ("guarded", 1)])
def test_an_interrupted_run_leaves_nothing(tmp_path, when):
    def interrupt(name, done, total):
        if (name, done) == when:
            raise KeyboardInterrupt

    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with pytest.raises(KeyboardInterrupt):
        run_demo(tmp_path / "out", settings=QUICK, on_step=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"seed": -1}, RangeError),
        ({"seed": 2**63}, RangeError),
        ({"data": "nowhere"}, DataError),
        ({"out": "file"}, DataError),
        ({"out": "file/below"}, DataError),
    ],
)
def test_bad_input_is_refused_before_the_first_step(tmp_path, arguments, error):
    (tmp_path / "file").write_text("kept")
    paths = {name: tmp_path / value for name, value in arguments.items() if name != "seed"}

    def never(*_):
        raise AssertionError("a step was taken")

    with pytest.raises(error) as caught:
        run_demo(**{"out": tmp_path / "out", **arguments, **paths}, settings=QUICK, on_step=never)
    assert isinstance(caught.value, AttribGuardError)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "kept"
