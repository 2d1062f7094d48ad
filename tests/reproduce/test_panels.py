import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from attribguard.reproduce import reproduce
from attribguard.reproduce.panels import draw_panels
from attribguard.reproduce.recipe import Panel
from attribguard.reproduce.records import read
from tests.reproduce.small import small, train


def shown(settings):
    outline = torch.zeros(4, 4, dtype=torch.bool)
    outline[1:3, 1:3] = True
    return [Panel("first", torch.rand(4, 4, generator=torch.Generator().manual_seed(0)), outline)]


def looking(run):
    """Of the row "plain" alone, and of seed 0."""
    keeps = run.final and run.seed == 0 and run.settings["weight"] == 0
    return replace(train(run), maps={"first": [[0.0, 1.0], [0.0, 0.0]]} if keeps else {})


@pytest.fixture
def rows(tmp_path):
    return reproduce(small(function=looking, panels=shown), tmp_path)


def test_panels_take_the_place_of_the_mean_map(rows):
    assert [file.name for file in rows[2:]] == ["small.png", "small-maps.png"]
    records = read(rows[0])
    assert draw_panels(small(panels=shown), "default", 2, records) == rows[3].read_bytes()


def test_a_line_for_the_images_and_one_for_each_row_that_keeps_maps(rows):
    records = read(rows[0])
    one = Image.open(io.BytesIO(draw_panels(small(panels=shown), "default", 2, records)))
    maps = {"maps": {"first": [[1.0, 0.0], [0.0, 0.0]]}}
    other = [record | maps if record["final"] else record for record in records]
    all_rows = Image.open(io.BytesIO(draw_panels(small(panels=shown), "default", 2, other)))
    assert all_rows.height - one.height == pytest.approx(2 * 150, abs=1)  # two more lines of 1.5 inches


def test_the_map_is_what_is_drawn(rows):
    records = read(rows[0])
    drawn = draw_panels(small(panels=shown), "default", 2, records)
    for record in records:
        if "maps" in record:
            record["maps"] = {"first": [[0.0, 0.0], [0.0, 2.0]]}
    moved = draw_panels(small(panels=shown), "default", 2, records)
    assert not np.array_equal(*(np.asarray(Image.open(io.BytesIO(png))) for png in (drawn, moved)))


def test_rows_without_maps_have_no_panels(tmp_path):
    recipe = small(panels=shown)
    assert draw_panels(recipe, "default", 2, read(reproduce(recipe, tmp_path)[0])) is None
