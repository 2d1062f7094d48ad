"""The example at a small size: its files, falling losses, and unannotated images that teach no segmentation."""

import io
import json

import pytest
import torch
from matplotlib import image as png
from typer.testing import CliRunner

from examples import segmentation_head as example


def run(out, *options):
    app = example.typer.Typer()
    app.command()(example.main)
    return CliRunner().invoke(app, ["--out", str(out), *options])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One small run: its folder, what it printed, its result."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example, "SIZE", 32)
        patch.setattr(example, "TEST_IMAGES", 24)
        patch.setenv("COLUMNS", "120")
        out = tmp_path_factory.mktemp("example") / "new" / "folder"
        done = run(out, "--images", "96", "--annotated", "48", "--epochs", "8", "--seed", "3")
    assert done.exit_code == 0, done.output
    return out, done.output, json.loads((out / example.RESULT).read_text("utf-8"))


def test_every_loss_falls(finished):
    losses = finished[2]["losses"]
    assert set(losses) == {"criterion", "segmentation", "reconstruction"}
    for values in losses.values():
        assert len(values) == 8
        assert 0 < values[-1] < 0.9 * values[0]


def test_lesions_are_found_and_drawn_again(finished):
    """Measured at seeds 0 to 4: IoU .64, .00, .67, .72 and .76; with so few images it may find nothing yet.

    The squared error was .47, .55, .38, .50 and .52 of what one grey image has.
    """
    result = finished[2]
    assert result["segmentation IoU"] > 0.5
    images = example.draw_lesions(24, (32, 32), 2 * 3 + 1).images
    assert result["reconstruction error"] < 0.7 * images.sub(images.mean()).square().mean()
    assert 0 <= result["accuracy"] <= 1


def test_the_result_says_what_it_came_from(finished):
    result = finished[2]
    asked = {"seed": 3, "images": 96, "annotated": 48, "epochs": 8, "batch": 16}
    assert {name: result[name] for name in asked} == asked
    assert result["seconds"] > 0


def test_the_table_shows_first_and_last_losses_and_the_test_figures(finished):
    _, printed, result = finished
    for values in result["losses"].values():
        assert f"{values[0]:.4f}" in printed and f"{values[-1]:.4f}" in printed
    for name in ("accuracy", "segmentation IoU", "reconstruction error"):
        assert f"{result[name]:.4f}" in printed


def test_the_picture_shows_four_images_in_four_columns(finished):
    out, _, _ = finished
    picture = png.imread(out / example.PICTURE)
    assert picture.shape[1] == 900
    assert sorted(path.name for path in out.iterdir()) == [example.PICTURE, example.RESULT]
    # Each of the four rows has the colours of skin in its first and last panel, and grey in between.
    colour = picture[..., 0] - picture[..., 2]
    skin = [colour[:, left : left + 210].max(1) > 0.1 for left in (12, 678)]
    assert all(3 * 210 < shown.sum() <= 4 * 212 for shown in skin)
    assert colour[:, 230:670].max() < 0.01


def test_a_row_shows_what_it_was_given():
    mask = torch.zeros(8, 8)
    mask[:4] = 1
    red = torch.zeros(3, 8, 8)
    red[0] = 1
    picture = png.imread(io.BytesIO(example.draw([("caption", red, mask, 1 - mask, 1 - red)])))[..., :3]
    panels = picture[-212 - 10 : -22, :]
    top, bottom = panels[20], panels[-20]
    columns = [12 + 222 * i + 105 for i in range(4)]
    expected = [[1, 0, 0], [1, 1, 1], [0, 0, 0], [0, 1, 1]], [[1, 0, 0], [0, 0, 0], [1, 1, 1], [0, 1, 1]]
    assert torch.allclose(torch.tensor(top[columns]), torch.tensor(expected[0], dtype=torch.float32))
    assert torch.allclose(torch.tensor(bottom[columns]), torch.tensor(expected[1], dtype=torch.float32))


def test_segmentations_that_are_not_annotated_are_not_learned_from():
    """Wrong everywhere but on the annotated rows, they change no parameter."""
    data, counted = example.draw_lesions(16, (32, 32), 0), torch.arange(16) < 4
    wrong = data._replace(segmentation=torch.where(counted[:, None, None], data.segmentation, 1 - data.segmentation))
    states = []
    for lesions in (data, wrong):
        torch.manual_seed(0)
        guard = example.guard_of(example.small_network(), (32, 32))
        example.train(guard, lesions, counted, example.Settings(epochs=1), lambda: None)
        states.append(guard.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_drawn_lesions_are_what_they_are_said_to_be():
    a, b, other = (example.draw_lesions(20, (40, 56), seed) for seed in (1, 1, 2))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a.images, other.images)
    assert a.images.shape == (20, 3, 40, 56) and a.segmentation.shape == (20, 40, 56)
    assert a.images.min() >= 0 and a.images.max() <= 1
    assert a.targets.tolist() == [0, 1] * 10
    assert a.segmentation.unique().tolist() == [0, 1]
    inside, outside = (a.images.mean(1)[a.segmentation == part].mean() for part in (1, 0))
    assert inside < outside - 0.1
    # A jagged outline is longer for its area: edges between pixels squared, over the area.
    edges = a.segmentation.diff(dim=1).abs().sum((1, 2)) + a.segmentation.diff(dim=2).abs().sum((1, 2))
    crooked = edges.square() / a.segmentation.sum((1, 2))
    assert crooked[1::2].min() > crooked[::2].max()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--images", "4", "--annotated", "5"], "--annotated 5"),
        (["--annotated", "0"], "--annotated"),
        (["--epochs", "0"], "--epochs"),
        (["--seed", "-1"], "--seed"),
        (["--images", "one"], "--images"),
    ],
)
def test_bad_options_are_one_clear_error_and_write_nothing(tmp_path, options, words):
    result = run(tmp_path / "out", *options)
    assert result.exit_code == 2 and words in result.output
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_way_is_found_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine", "utf-8")
    monkeypatch.setattr(example, "train", None)
    result = run(tmp_path / "file")
    assert result.exit_code == 2 and "segmentation_head:" in result.output
    assert (tmp_path / "file").read_text("utf-8") == "mine"
