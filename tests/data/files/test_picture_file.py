import os
import tracemalloc
import zlib

import numpy as np
import pytest
import torch

from attribguard.data.files.picture_file import PictureHeader, read_mask, read_picture, read_picture_header
from attribguard.errors import DataError
from tests.data.picture_files import chunk, jpeg_bytes, png_bytes, png_file, write_png

GRAY = np.arange(12).reshape(3, 4) * 20
DEEP = np.array([[0, 1, 255, 256], [257, 4095, 32768, 65535]])
COLOURS = np.arange(36).reshape(3, 4, 3) * 7
DEEP_COLOURS = np.arange(36).reshape(3, 4, 3) * 1801 + 3


@pytest.mark.parametrize(
    ("pixels", "bits"), [(GRAY, 8), (DEEP, 16), (COLOURS, 8), (DEEP_COLOURS, 16)], ids="gray deep rgb deeprgb".split()
)
@pytest.mark.parametrize("filters", [(0,), (1, 2, 3, 4)])
def test_png_files_of_8_and_16_bits_gray_and_rgb_are_read_to_the_last_bit(tmp_path, pixels, bits, filters):
    path = write_png(tmp_path / "a.png", pixels, bits, filters=filters)
    read = read_picture(path)
    expected = torch.tensor(pixels).view(*pixels.shape[:2], -1).permute(2, 0, 1)
    assert read.dtype == torch.float32 and tuple(read.shape) == tuple(read_picture_header(path)) == expected.shape
    torch.testing.assert_close(read, (expected.double() / (2**bits - 1)).float(), rtol=0, atol=6e-8)
    assert torch.equal((read * (2**bits - 1)).round().long(), expected)


def test_png_files_of_less_than_8_bits_are_scaled_alike(tmp_path):
    for bits, row, expected in ((1, 0b01000000, [0, 1, 0]), (2, 0b00011000, [0, 1 / 3, 2 / 3])):
        path = tmp_path / f"{bits}.png"
        path.write_bytes(png_file((3, 1, bits, 0, 0, 0, 0), zlib.compress(bytes([0, row]))))
        torch.testing.assert_close(read_picture(path), torch.tensor([[expected]], dtype=torch.float32))


def test_a_palette_gives_its_colours(tmp_path):
    path, colours = tmp_path / "a.png", bytes([0, 0, 0, 255, 51, 0])
    path.write_bytes(png_file((2, 1, 8, 3, 0, 0, 0), zlib.compress(bytes([0, 1, 0])), chunk(b"PLTE", colours)))
    torch.testing.assert_close(read_picture(path), torch.tensor([[[1.0, 0]], [[0.2, 0]], [[0, 0]]]))


def test_an_interlaced_file_is_read(tmp_path):
    # 2 x 2 pixels: pass 1 has the first, pass 6 the second of its row, pass 7 the second row.
    path = tmp_path / "a.png"
    path.write_bytes(png_file((2, 2, 8, 0, 0, 0, 1), zlib.compress(bytes([0, 10, 0, 20, 0, 30, 40]))))
    assert (read_picture(path) * 255).round().tolist() == [[[10, 20], [30, 40]]]


@pytest.mark.parametrize(("samples", "bits"), [(2, 8), (4, 8), (2, 16), (4, 16)])
def test_an_opaque_alpha_channel_is_dropped_and_a_transparent_one_refused(tmp_path, samples, bits):
    pixels = np.arange(6 * samples).reshape(2, 3, samples) * 9
    pixels[..., -1] = 2**bits - 1
    read = read_picture(write_png(tmp_path / "a.png", pixels, bits))
    expected = torch.tensor(pixels[..., :-1]).permute(2, 0, 1)
    assert torch.equal((read * (2**bits - 1)).round().long(), expected)
    pixels[1, 2, -1] -= 1
    with pytest.raises(DataError, match="transparent"):
        read_picture(write_png(tmp_path / "a.png", pixels, bits))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_value_is_refused(tmp_path, bits):
    path = tmp_path / "a.png"
    row = zlib.compress(bytes(1 + 2 * bits // 8))
    path.write_bytes(png_file((2, 1, bits, 0, 0, 0, 0), row, chunk(b"tRNS", bytes(2))))
    with pytest.raises(DataError, match="transparent"):
        read_picture(path)


@pytest.mark.parametrize(("colours", "tolerance"), [([[0], [97], [255]], 0), ([[255, 0, 0], [7, 130, 255]], 1.5)])
def test_jpeg_files_are_read(tmp_path, colours, tolerance):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_bytes(colours))
    assert read_picture_header(path) == PictureHeader(len(colours[0]), 8, 8 * len(colours))
    expected = torch.tensor(colours).T[:, None].repeat_interleave(8, 2).expand(-1, 8, -1) / 255
    torch.testing.assert_close(read_picture(path), expected, rtol=0, atol=tolerance / 255 + 1e-6)


def test_a_jpeg_file_in_cmyk_is_one_clear_error(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(jpeg_bytes([[1, 2, 3, 4]]))
    with pytest.raises(DataError, match="CMYK"):
        read_picture(path)


WHOLE = png_bytes(np.random.default_rng(0).integers(0, 256, (32, 32)))
JPEG = jpeg_bytes([[7], [200], [3]] * 100)


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b"", "header"),
        (b"GIF89a" + bytes(100), "header"),
        (WHOLE[:20], "header"),
        (WHOLE[:500], "header"),
        (WHOLE[:-1], "header"),
        (WHOLE[:16] + bytes(8) + WHOLE[24:], "header"),
        (png_bytes(np.zeros((9, 9)))[:-12] + WHOLE[-400:], "pixels"),
        (WHOLE[:300] + bytes([WHOLE[300] ^ 4]) + WHOLE[301:], "pixels"),
        (png_file((8, 8, 8, 0, 0, 0, 0), zlib.compress(bytes(9 * 4))), "pixels"),
        (png_file((8, 8, 8, 0, 0, 0, 0), zlib.compress((b"\7" + bytes(8)) * 8)), "pixels"),
        (png_file((8, 8, 16, 2, 0, 0, 1), zlib.compress(bytes(500))), "pixels"),
        (JPEG[:20], "header"),
        (JPEG[: len(JPEG) // 2], "pixels"),
    ],
    ids="nothing gif start half last sizeless joined flip rows filter deepinterlaced jpegstart jpeghalf".split(),
)
def test_a_broken_file_is_one_error_that_names_it(tmp_path, data, where):
    path = tmp_path / "scan.png"
    path.write_bytes(data)
    if where == "pixels":
        read_picture_header(path)
    else:
        with pytest.raises(DataError, match=r"scan\.png"):
            read_picture_header(path)
    with pytest.raises(DataError, match=r"scan\.png"):
        read_picture(path)


def test_what_is_no_file_is_one_clear_error(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("missing", "does not exist"), ("pipe", "is no file"), (".", "is no file")):
        with pytest.raises(DataError, match=words):
            read_picture(tmp_path / name)


@pytest.mark.parametrize("size", [(60_000, 60_000), (8_192, 8_193), (4_000, 4_000)])
def test_a_header_that_promises_too_much_is_refused_before_memory_is_set_aside(tmp_path, size):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_file((*size, 8, 0, 0, 0, 0), zlib.compress(bytes(10_000))))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=f"claims {size[0]} x {size[1]} pixels"):
            read_picture(path)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def test_pixels_beyond_the_header_are_not_unpacked(tmp_path):
    path = tmp_path / "bomb.png"
    path.write_bytes(png_file((8, 8, 8, 0, 0, 0, 0), zlib.compress(bytes(50_000_000))))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="73 bytes of pixels or more"):
            read_picture(path)
        assert tracemalloc.get_traced_memory()[1] < 2e6
    finally:
        tracemalloc.stop()


def test_a_blank_picture_of_common_size_is_not_taken_for_a_bomb(tmp_path):
    path = tmp_path / "blank.png"
    path.write_bytes(png_file((2048, 2048, 16, 0, 0, 0, 0), zlib.compress(bytes(2048 * 4097), 9)))
    assert read_picture(path).sum() == 0


@pytest.mark.parametrize(("high", "bits"), [(1, 8), (7, 8), (255, 8), (1, 16), (65535, 16)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_mask_is_relevant_where_it_is_not_0(tmp_path, high, bits, channels):
    pixels = np.array([[0, high], [high, 0]])
    pixels = pixels if channels == 1 else np.stack([pixels] * 3, -1)
    mask = read_mask(write_png(tmp_path / "a.png", pixels, bits))
    assert mask.dtype == torch.float32 and mask.tolist() == [[[0, 1], [1, 0]]]


@pytest.mark.parametrize("value", [0, 255])
def test_a_mask_may_be_all_one_value(tmp_path, value):
    assert read_mask(write_png(tmp_path / "a.png", np.full((2, 2), value))).unique().item() == (value > 0)


@pytest.mark.parametrize(
    "pixels",
    [[[0, 1, 2]], [[1, 2]], [[0, 254, 255]], [[[0, 0, 1], [0, 0, 0]]], [[[1, 1, 2], [0, 0, 0]]], [[[1, 0, 0]] * 2]],
)
def test_a_mask_of_several_values_or_colours_is_one_clear_error(tmp_path, pixels):
    with pytest.raises(DataError, match=r"a.png, a mask of several"):
        read_mask(write_png(tmp_path / "a.png", pixels))
