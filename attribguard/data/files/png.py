"""PNG files checked before they are decoded, and the one kind of them that Pillow cannot read rightly."""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["SIGNATURE", "PngHeader", "deep_colours", "png_header", "scanlines"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
"""The first eight bytes of a PNG file."""

_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # a pixel, by colour type: gray, RGB, palette, gray and RGB with alpha
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


class PngHeader(NamedTuple):
    """What the first chunk of a PNG file says.

    Attributes:
        width: in pixels.
        height: in pixels.
        bits: of a sample.
        samples: of a pixel as stored: 1 gray or palette, 2 gray and alpha, 3 RGB, 4 RGB and alpha.
        palette: whether samples stand for colours in a list.
        interlaced: whether rows come in seven passes.
    """

    width: int
    height: int
    bits: int
    samples: int
    palette: bool
    interlaced: bool

    @property
    def bytes_unpacked(self) -> int:
        """How many bytes the rows hold, with the byte before each that names its filter."""
        depth = self.bits * self.samples
        starts = _ADAM7 if self.interlaced else ((0, 0, 1, 1),)
        sizes = [(-(-(self.height - y) // down), -(-(self.width - x) // across)) for y, x, down, across in starts]
        return sum(rows * (1 + (columns * depth + 7) // 8) for rows, columns in sizes if rows > 0 and columns > 0)


def png_header(start: bytes) -> PngHeader:
    """Read the header.

    Args:
        start: the first 29 bytes of the file, or more.

    Returns:
        What it says; width and height are 1 or more.

    Raises:
        ValueError: if this is no PNG file, or says what the format does not allow.

    Example:
        >>> png_header(SIGNATURE + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 640, 480, 16, 0, 0, 0, 0)).bytes_unpacked
        614880
    """
    if len(start) < 29 or start[:16] != SIGNATURE + b"\0\0\0\rIHDR":
        raise ValueError("no PNG header")
    width, height, bits, colour, *methods, interlace = struct.unpack(">IIBBBBB", start[16:29])
    if not (0 < width < 2**31 and 0 < height < 2**31) or bits not in _DEPTHS.get(colour, ()):
        raise ValueError(f"a PNG header of {width} x {height} pixels, {bits} bits, colour type {colour}")
    if methods != [0, 0] or interlace > 1:
        raise ValueError("a PNG header that names an unknown method")
    return PngHeader(width, height, bits, _SAMPLES[colour], colour == 3, interlace == 1)


def scanlines(data: bytes) -> bytes:
    """The rows of a PNG file, unpacked but still filtered, after every chunk's checksum was seen to hold.

    Decoders may fill with zeros what a file leaves out. Here the rows must be as many as the header says.

    Args:
        data: the whole file.

    Returns:
        ``png_header(data).bytes_unpacked`` bytes.

    Raises:
        ValueError: if the file is cut, a checksum fails, or there are more or fewer bytes than the header says.
    """
    needed, at, packed = png_header(data).bytes_unpacked, len(SIGNATURE), []
    while True:
        length, kind = struct.unpack(">I4s", data[at : at + 8].ljust(8, b"\xff"))
        end = at + 12 + length
        if end > len(data):
            raise ValueError("a chunk that is longer than the rest of the file")
        if zlib.crc32(data[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise ValueError(f"a chunk {kind!r} whose checksum fails")
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            packed.append(data[at + 8 : end - 4])
        at = end
    unpack = zlib.decompressobj()
    rows = unpack.decompress(b"".join(packed), needed + 1)  # one byte more than promised would show
    if len(rows) != needed or not unpack.eof:
        raise ValueError(f"{len(rows)} bytes of pixels or more, where the header says {needed}")
    return rows


def deep_colours(data: bytes) -> NDArray[np.uint16]:
    """Decode a PNG file of 16 bits and more than one sample a pixel, of which Pillow drops the lower eight bits.

    Source: the PNG specification, section 9 (filters). A byte depends on those to the left, above, and above to the
    left, so that all pixels of one diagonal are found at once.

    Args:
        data: the whole file.

    Returns:
        (H, W, samples).

    Raises:
        ValueError: if the file is damaged, not of 16 bits, or interlaced, which is not decoded.
    """
    header = png_header(data)
    if header.bits != 16 or header.interlaced:
        raise ValueError("interlaced 16-bit colours")
    rows = np.frombuffer(scanlines(data), np.uint8).reshape(header.height, -1)
    if rows[:, 0].max() > 4:
        raise ValueError(f"a row with the unknown filter {rows[:, 0].max()}")
    # A border of zeros above and to the left, as the filters want it.
    pixels = np.zeros((header.height + 1, header.width + 1, 2 * header.samples), np.int16)
    pixels[1:, 1:] = rows[:, 1:].reshape(header.height, header.width, -1)
    for diagonal in range(header.height + header.width - 1):
        y = np.arange(max(0, diagonal - header.width + 1), min(header.height, diagonal + 1))
        x = diagonal - y
        left, above, corner = pixels[y + 1, x], pixels[y, x + 1], pixels[y, x]
        guess = left + above - corner
        by_left, by_above, by_corner = abs(guess - left), abs(guess - above), abs(guess - corner)
        nearest = np.where(by_above <= by_corner, above, corner)
        paeth = np.where((by_left <= by_above) & (by_left <= by_corner), left, nearest)
        before = np.choose(rows[y, 0, None], [np.zeros_like(left), left, above, (left + above) // 2, paeth])
        pixels[y + 1, x + 1] = (pixels[y + 1, x + 1] + before) % 256
    decoded = pixels[1:, 1:].astype(np.uint8).view(">u2")
    return decoded.astype(np.uint16)
