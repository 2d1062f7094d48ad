"""PNG and JPEG files written byte by byte, as the formats' specifications have it."""

import struct
import zlib

import numpy as np

COLOURS = {1: 0, 2: 4, 3: 2, 4: 6}  # colour type, by samples a pixel


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_file(header, rows, *before):
    """A file from the fields of its header, its packed rows, and chunks between the two."""
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header)), *before, chunk(b"IDAT", rows), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def filtered(row, above, step, kind):
    """One row after one of the five filters, byte by byte."""
    out = bytearray([kind])
    for at, value in enumerate(row):
        left = row[at - step] if at >= step else 0
        corner = above[at - step] if at >= step else 0
        up = above[at]
        guess = left + up - corner
        paeth = min((abs(guess - left), 0, left), (abs(guess - up), 1, up), (abs(guess - corner), 2, corner))[2]
        out.append((value - [0, left, up, (left + up) // 2, paeth][kind]) % 256)
    return bytes(out)


def png_bytes(pixels, bits=8, filters=(0,)):
    """A PNG file of (H, W) or (H, W, samples) at 8 or 16 bits; rows take the filters in turn."""
    pixels = np.asarray(pixels)
    samples = 1 if pixels.ndim == 2 else pixels.shape[2]
    height, width = pixels.shape[:2]
    rows = [row.astype(f">u{bits // 8}").tobytes() for row in pixels]
    above = [bytes(len(rows[0])), *rows]
    step = samples * bits // 8
    packed = b"".join(
        filtered(row, above[at], step, filters[at % len(filters)]) if filters != (0,) else b"\0" + row
        for at, row in enumerate(rows)
    )
    return png_file((width, height, bits, COLOURS[samples], 0, 0, 0), zlib.compress(packed, 1))


def jpeg_bytes(colours):
    """A baseline JPEG file of 8 x 8 squares in a row, each of one colour: gray, RGB (kept as YCbCr), or CMYK."""
    samples = len(colours[0])
    marks = [
        b"\xff\xd8",
        segment(0xDB, b"\0" + b"\1" * 64),  # no quantisation
        segment(0xC0, struct.pack(">BHHB", 8, 8, 8 * len(colours), samples) + _each(samples, "%c\x11\0")),
        segment(0xC4, b"\0" + bytes([0, 0, 0, 12, *[0] * 12]) + bytes(range(12))),  # categories 0 to 11, 4 bits each
        segment(0xC4, b"\x10" + bytes([1, *[0] * 15]) + b"\0"),  # one bit: the block has no more
        segment(0xDA, bytes([samples]) + _each(samples, "%c\0") + b"\0\x3f\0"),
    ]
    bits, before = "", [0] * samples
    for colour in colours:
        for place, value in enumerate(ycbcr(colour) if samples == 3 else colour):
            level = 8 * (round(value) - 128)
            step, before[place] = level - before[place], level
            size = abs(step).bit_length()
            bits += f"{size:04b}" + (f"{step if step > 0 else step + 2**size - 1:0{size}b}" if size else "") + "0"
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    return b"".join(marks) + scan + b"\xff\xd9"


def segment(kind, data):
    return bytes([0xFF, kind]) + struct.pack(">H", len(data) + 2) + data


def ycbcr(colour):
    red, green, blue = colour
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return luma, 128 + (blue - luma) / 1.772, 128 + (red - luma) / 1.402


def _each(samples, pattern):
    return b"".join((pattern % (place + 1)).encode("latin-1") for place in range(samples))


def write_png(path, pixels, bits=8, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png_bytes(pixels, bits, **options))
    return path


def write_lines(path, *lines):
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return path
