import io

import matplotlib.image
import numpy as np

from attribguard.reproduce import reproduce
from attribguard.reproduce.plot import draw
from attribguard.reproduce.records import read
from tests.reproduce.small import small


def pixels(content):
    return (matplotlib.image.imread(io.BytesIO(content))[..., :3] * 255).round()


def count(picture, color):
    return int((np.abs(picture - color).max(-1) < 3).sum())


def test_ours_is_drawn_in_blue_and_the_papers_in_orange(tmp_path):
    records = read(reproduce(small(), tmp_path)[0])
    with_rows, without = (pixels(draw(small(), "default", 2, some)) for some in (records, []))
    assert with_rows.shape[1] == 960
    assert count(with_rows, (0, 114, 178)) > count(without, (0, 114, 178)) + 20
    assert count(without, (213, 94, 0)) > 20


def test_the_users_own_style_does_not_reach_the_picture():
    plain = draw(small(), "default", 2, [])
    with matplotlib.rc_context({"axes.facecolor": "black", "font.size": 30}):
        assert draw(small(), "default", 2, []) == plain
