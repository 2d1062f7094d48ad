"""On a small folder in the NIH's form: whose boxes count, that they train, and what is measured."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader
from typer.testing import CliRunner

from attribguard import cam
from attribguard.data import CHEST_FINDINGS, ChestXray14
from examples import chest_xray_folder as example
from tests.data.picture_files import write_lines, write_png

HEADER = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"
PATIENTS, SIZE = 10, 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three pictures a patient: one of every second finding, one of the rest, and one of the mass alone."""
    folder, rng = tmp_path_factory.mktemp("nih"), np.random.default_rng(0)
    entries, boxes = [], []
    for patient in range(1, PATIENTS + 1):
        for visit, findings in enumerate(("|".join(CHEST_FINDINGS[1::2]), "Mass", "|".join(CHEST_FINDINGS[::2]))):
            name = f"{patient:08}_{visit:03}.png"
            write_png(folder / "images" / name, rng.integers(0, 256, (SIZE, SIZE)))
            entries.append(f"{name},{findings},{visit},{patient},058Y,M,PA,")
        boxes.append(f"{patient:08}_001.png,Mass,4,6,10.5,12,,,")
        boxes.append(f"{patient:08}_002.png,Atelectasis,20,20,{SIZE - 20}.0005,8,,,")  # one of its seven findings
    write_lines(folder / "Data_Entry_2017.csv", HEADER, *entries)
    write_lines(folder / "BBox_List_2017.csv", BOX_HEADER, *boxes)
    return folder


def small_network():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 14)
    )


def loader(folder, **options):
    return DataLoader(ChestXray14(folder, None, **options), batch_size=6)


def test_boxes_count_where_every_finding_has_one(folder):
    batch = next(iter(loader(folder)))
    given = example.annotation(batch)
    assert given["annotated"].tolist() == [False, True, False] * 2
    expected = torch.zeros(SIZE, SIZE)
    expected[6:18, 4:14] = 1  # the centre of column 14 lies at 14.5, where the box ends
    assert torch.equal(given["mask"][1, 0], expected)
    assert given["mask"][2, 0].sum() == 12 * 8  # up to the edge, beyond which the table's box reaches a little


def test_the_boxes_train(folder):
    networks, terms = [], []
    for boxed in (True, False):
        torch.manual_seed(0)
        network, data = small_network(), loader(folder)
        if not boxed:
            data.collate_fn = lambda items: (
                torch.utils.data.default_collate(items) | {"box_classes": torch.full((len(items), 1), -1)}
            )
        guard = example.guard_of(network, data.dataset.targets, 1.0, SIZE)
        terms.append(next(example.train(guard, data, 1, "cpu", rate=0.01)))
        networks.append(guard.unwrap())
    assert terms[0]["actdiff"] > 0 == terms[1]["actdiff"]
    assert not torch.allclose(networks[0][0].weight, networks[1][0].weight, atol=1e-4)


def test_the_criterion_knows_how_rare_a_finding_is(folder):
    data = ChestXray14(folder, None)
    criterion = example.guard_of(small_network(), data.targets, 1.0, SIZE).criterion
    mass, odd = CHEST_FINDINGS.index("Mass"), 1
    assert criterion.positive[mass] == 2 * PATIENTS and criterion.positive[odd] == PATIENTS


def test_auroc_and_soft_iobb_are_those_of_each_finding(folder):
    network, data = small_network().eval(), loader(folder)
    network[4].weight.data.abs_()  # so that something speaks for every finding
    auroc, iobb = example.evaluate(network, data, "cpu")
    pictures = data.dataset
    images = torch.stack([item["image"] for item in pictures])
    with torch.no_grad():
        scores = network(images)
    areas = []
    for score, target in zip(scores.T, pictures.targets.T, strict=True):
        pairs = score[target == 1][:, None] - score[target == 0]
        areas.append(((pairs > 0).double() + (pairs == 0).double() / 2).mean().item())
    assert auroc == pytest.approx(sum(areas) / 14, abs=1e-6)
    held = iobb.per_image()
    assert held.classes.unique().tolist() == [0, CHEST_FINDINGS.index("Mass")] and len(held.values) == 2 * PATIENTS
    heat = cam(network, images[1:2], CHEST_FINDINGS.index("Mass"))[0]
    heat = (heat - heat.min()) / (heat.max() - heat.min())
    assert held.values[0].item() == pytest.approx(heat[6:18, 4:14].mean().item(), abs=1e-5)


def run(*options):
    app = example.typer.Typer()
    app.command()(example.main)
    return CliRunner().invoke(app, list(map(str, options)))


def test_the_command_goes_from_the_folder_to_the_figures(folder):
    done = run("--data", folder, "--network", "test_resnet", "--size", 32, "--epochs", 2, "--batch", 8)
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert len(lines) == 2
    for line in lines:  # two boxes a patient, of a fifth of the patients; a map that is 0 everywhere has no value
        assert 0 <= int(line.split(" boxed findings")[0].split()[-1]) <= 2 * PATIENTS // 5
    assert math.isfinite(float(lines[-1].split("AUROC ")[1].split(",")[0]))


def test_a_folder_without_the_tables_is_one_clear_error(tmp_path):
    done = run("--data", tmp_path)
    assert done.exit_code == 2 and "chest_xray_folder:" in done.output
