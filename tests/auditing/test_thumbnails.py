import base64
import io

import numpy as np
import torch
from PIL import Image

from attribguard.auditing.thumbnails import heat_picture, outline_picture, thumbnail


def opened(address):
    kind, content = address.split(",", 1)
    assert kind.startswith("data:image/") and kind.endswith(";base64")
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_images_are_stretched_and_small_enough():
    image = torch.linspace(-3, 5, 300 * 200).view(1, 300, 200)
    small = opened(thumbnail(image))
    assert small.size == (64, 96)
    grey = np.asarray(small.convert("L"), int)
    assert grey.min() < 8 and grey.max() > 247
    assert opened(thumbnail(torch.rand(3, 28, 28))).size == (84, 84)  # enlarged by a whole factor


def test_a_flat_image_is_black_and_not_broken():
    assert np.asarray(opened(thumbnail(torch.full((1, 8, 8), 7.0))).convert("L")).max() < 8


def test_an_outline_follows_the_region_and_is_closed_at_the_border():
    region = torch.zeros(96, 96, dtype=torch.bool)
    region[10:30, 40:96] = True
    shown = np.asarray(opened(outline_picture(region)).convert("RGBA"))[..., 3] > 0
    assert shown[10, 40:96].all() and shown[29, 40:96].all() and shown[10:30, 95].all()
    assert not shown[12:28, 42:94].any() and not shown[:10].any()


def test_without_a_region_there_is_no_outline():
    assert outline_picture(torch.zeros(8, 8, dtype=torch.bool)) == ""


def test_heat_is_transparent_where_there_is_none_and_pooled_where_it_is_fine():
    heat = torch.zeros(4, 6)
    heat[1, 2] = 0.3
    alpha = np.asarray(opened(heat_picture(heat)).convert("RGBA"))[..., 3]
    assert alpha.shape == (4, 6) and alpha[1, 2] == 255 and alpha.sum() == 255
    assert opened(heat_picture(torch.rand(224, 224))).size == (32, 32)
    assert np.asarray(opened(heat_picture(torch.zeros(2, 2))).convert("RGBA"))[..., 3].max() == 0
