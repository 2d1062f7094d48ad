import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attribguard.data.files.png import deep_colours, png_header, scanlines
from tests.data.picture_files import chunk, png_bytes, png_file


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 7),
    st.integers(1, 7),
    st.sampled_from([2, 3, 4]),
    st.lists(st.integers(0, 4), min_size=1, max_size=7),
    st.integers(0, 99),
)
def test_deep_colours_undoes_every_filter(height, width, samples, filters, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.choice([0, 1, 255, 256, 257, 65280, 65535, rng.integers(65536)], (height, width, samples))
    read = deep_colours(png_bytes(pixels, 16, filters=tuple(filters)))
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, pixels)


def test_scanlines_are_the_unpacked_rows_whatever_the_number_of_chunks():
    rows = bytes(range(10))
    packed = zlib.compress(rows)
    whole = png_file((4, 2, 8, 0, 0, 0, 0), packed)
    parted = png_file((4, 2, 8, 0, 0, 0, 0), packed[5:], chunk(b"tEXt", b"a\0b"), chunk(b"IDAT", packed[:5]))
    assert scanlines(whole) == scanlines(parted) == rows


# Rows of the seven passes of a picture of 5 x 3 pixels, counted by hand on the specification's 8 x 8 pattern:
# pass 1: 1 x 1 (columns x rows), 2: 1 x 1, 3: none, 4: 1 x 1, 5: 3 x 1, 6: 2 x 2, 7: 5 x 1.
@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ((5, 3, 8, 0, 0, 0, 0), 3 * 6),
        ((5, 3, 1, 0, 0, 0, 0), 3 * 2),
        ((9, 3, 1, 3, 0, 0, 0), 3 * 3),
        ((5, 3, 16, 2, 0, 0, 0), 3 * 31),
        ((5, 3, 8, 6, 0, 0, 0), 3 * 21),
        ((5, 3, 8, 0, 0, 0, 1), 2 + 2 + 2 + 4 + 2 * 3 + 6),
    ],
)
def test_the_bytes_unpacked_are_counted_from_the_header(header, expected):
    assert png_header(png_file(header, b"")).bytes_unpacked == expected


@pytest.mark.parametrize(
    "header",
    [
        (0, 3, 8, 0, 0, 0, 0),
        (3, 0, 8, 0, 0, 0, 0),
        (2**31, 3, 8, 0, 0, 0, 0),
        (3, 3, 3, 0, 0, 0, 0),
        (3, 3, 4, 2, 0, 0, 0),
        (3, 3, 16, 3, 0, 0, 0),
        (3, 3, 8, 1, 0, 0, 0),
        (3, 3, 8, 0, 1, 0, 0),
        (3, 3, 8, 0, 0, 1, 0),
        (3, 3, 8, 0, 0, 0, 2),
    ],
)
def test_a_header_the_format_does_not_allow_is_refused(header):
    with pytest.raises(ValueError, match="a PNG header"):
        png_header(png_file(header, b""))


GOOD = png_bytes(np.arange(64).reshape(8, 8))


@pytest.mark.parametrize(
    "data",
    [
        GOOD[:-1],
        GOOD[:-12],
        GOOD[:60],
        GOOD[:29],
        GOOD[:20],
        b"",
        GOOD[:50] + bytes([GOOD[50] ^ 1]) + GOOD[51:],
        png_file((8, 8, 8, 0, 0, 0, 0), zlib.compress(bytes(9 * 8))[:-4]),
        png_file((8, 8, 8, 0, 0, 0, 0), zlib.compress(bytes(9 * 7))),
        png_file((8, 8, 8, 0, 0, 0, 0), zlib.compress(bytes(9 * 8 + 1))),
        png_file((8, 8, 8, 0, 0, 0, 0), b""),
        GOOD[:33] + struct.pack(">I", 2**31) + GOOD[37:],
    ],
    ids="last end middle chunks header nothing flip adler few many none length".split(),
)
def test_a_damaged_file_has_no_scanlines(data):
    with pytest.raises(ValueError, match=r"chunk|header|bytes of pixels"):
        scanlines(data)


@pytest.mark.parametrize("header", [(2, 2, 16, 2, 0, 0, 1), (2, 2, 8, 2, 0, 0, 0)])
def test_only_plain_rows_of_16_bits_are_decoded(header):
    with pytest.raises(ValueError, match="16-bit"):
        deep_colours(png_file(header, b""))


def test_an_unknown_filter_is_refused():
    with pytest.raises(ValueError, match="filter 5"):
        deep_colours(png_file((1, 1, 16, 2, 0, 0, 0), zlib.compress(b"\5" + bytes(6))))
