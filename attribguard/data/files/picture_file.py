"""PNG and JPEG files, and PNG masks, as tensors: checked before they are decoded, at 8 and 16 bits."""

from __future__ import annotations

import io
import os
import stat
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from attribguard.data.files.png import SIGNATURE, PngHeader, deep_colours, png_header, scanlines
from attribguard.errors import DataError

__all__ = ["PictureHeader", "read_mask", "read_picture", "read_picture_header"]

_MOST = 2**26  # pixels; below the number at which Pillow warns
_SIDE = 2**16  # pixels, as in JPEG; the rows and columns of a line of 2**26 pixels would take half an hour to unfilter
_SCANS = 2**6  # of the largest JPEG picture; each takes libjpeg through all pixels again, and may be a hundred bytes
_BYTES = 2**30  # of a file; more than the largest picture takes unpacked
_PACKED = 1032  # the most that deflate can pack into a byte; JPEG stays below
_END = b"\0\0\0\0IEND\xaeB`\x82"
_JPEG = {"L": 1, "RGB": 3}  # channels
_BROKEN = (OSError, ValueError, SyntaxError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_FIX = "check the file, or fetch it again"


class PictureHeader(NamedTuple):
    """What a picture is before its pixels are read.

    Attributes:
        channels: 1 for gray, 3 for colours; a palette counts as colours, and an alpha channel not at all.
        height: in pixels.
        width: in pixels.
    """

    channels: int
    height: int
    width: int


def read_picture_header(path: str | os.PathLike[str]) -> PictureHeader:
    """Size and channels of a picture, and whether its file can hold so much; no pixel is decoded.

    Args:
        path: a PNG or JPEG file.

    Returns:
        Channels, height and width, as ``read_picture`` will return them.

    Raises:
        DataError: if the file is missing, neither PNG nor JPEG, a JPEG file in CMYK colours, of more than 2**26
            pixels or a side of more than 2**16, too short for the size in its header, or a PNG file without an end.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("L", (4, 2)).save(f"{folder}/black.png")
        ...     read_picture_header(f"{folder}/black.png")
        PictureHeader(channels=1, height=2, width=4)
    """
    path = Path(path)
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise OSError("it is no file")
        if about.st_size > _BYTES:
            raise OSError(f"{about.st_size} bytes")
        with path.open("rb") as file:
            start = file.read(29)
            if start.startswith(SIGNATURE):
                png = png_header(start)
                header, depth = _as_picture(png), png.bits * png.samples
                file.seek(-min(len(_END), about.st_size), os.SEEK_END)
                if file.read() != _END:
                    raise ValueError("a PNG file that does not end where it should")
            else:
                file.seek(0)
                with Image.open(file, formats=["JPEG"]) as image:
                    if image.mode not in _JPEG:
                        raise ValueError(f"colours of the kind {image.mode}")
                    header = PictureHeader(_JPEG[image.mode], image.height, image.width)
                    depth = 8 * header.channels
    except FileNotFoundError as error:
        raise _broken(path, "does not exist") from error
    except _BROKEN as error:
        raise _broken(path, f"cannot be read ({_words(error)})") from error
    pixels = header.height * header.width
    if pixels > _MOST or max(header[1:]) > _SIDE or pixels * depth > 8 * _PACKED * about.st_size:
        raise _broken(path, f"claims {header.width} x {header.height} pixels in {about.st_size} bytes")
    return header


def read_picture(path: str | os.PathLike[str]) -> Tensor:
    """Read a picture: gray or colours, 8 or 16 bits, and PNG files of 1, 2 and 4 bits.

    What is stored is scaled by the highest value its type can hold, 255 or 65,535: a PNG file of 16 bits that uses
    only 12 of them stays dark. Neither gamma nor colour profiles nor the orientation in EXIF data are applied. An
    alpha channel must be opaque throughout and is dropped. Palettes give colours.

    Args:
        path: a PNG or JPEG file.

    Returns:
        (C, H, W) float32 in [0, 1], C = 1 or 3. Multiplied by 65,535 (or 255) and rounded, it is what was stored.

    Raises:
        DataError: as ``read_picture_header``; and if the file is damaged, holds more or less than its header says,
            transparent pixels, or interlaced colours of 16 bits.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[0, 13107, 65535]], np.uint16)).save(f"{folder}/deep.png")
        ...     read_picture(f"{folder}/deep.png")
        tensor([[[0.0000, 0.2000, 1.0000]]])
    """
    path = Path(path)
    header = read_picture_header(path)
    try:
        pixels = _decode(path.read_bytes())
    except _BROKEN as error:
        raise _broken(path, f"cannot be decoded ({_words(error)})") from error
    picture = torch.from_numpy(pixels).movedim(-1, 0).contiguous()
    if tuple(picture.shape) != tuple(header):
        raise _broken(path, "changed while it was read")
    return picture


def read_mask(path: str | os.PathLike[str]) -> Tensor:
    """Read a mask: what is not 0 is relevant.

    Args:
        path: a PNG file of 0 and one other value, such as 1, 255 or 65,535; gray, or with three equal channels.

    Returns:
        (1, H, W) float32, 0 or 1.

    Raises:
        DataError: as ``read_picture``; and if the picture has colours or more than one value beside 0.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[0, 1, 1]], np.uint8)).save(f"{folder}/mask.png")
        ...     read_mask(f"{folder}/mask.png")
        tensor([[[0., 1., 1.]]])
    """
    picture = read_picture(path)
    relevant = picture[:1] > 0
    if not torch.equal(picture, (relevant * picture.max()).expand_as(picture)):
        raise DataError(
            got=f"{path}, a mask of several values or colours",
            needed="0 where the image is irrelevant and one other value where it is relevant",
            fix="threshold it, and save it as PNG: JPEG blurs the values",
        )
    return relevant.float()


def _decode(data: bytes) -> NDArray[np.float32]:
    """(H, W, C) in [0, 1]."""
    if not data.startswith(SIGNATURE):
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            if data.count(b"\xff\xda") * image.height * image.width > _SCANS * _MOST:
                raise ValueError("more scans than any picture needs")
            return _scale(np.asarray(image), 8)
    header = png_header(data)
    if header.bits == 16 and header.samples > 1:
        pixels = deep_colours(data)
    else:
        scanlines(data)
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            if "transparency" in image.info:
                raise ValueError("transparent colours")
            image.load()
            pixels = np.asarray(
                image.convert("RGB") if header.palette else image.convert("L") if image.mode == "1" else image
            )
    if header.samples in (2, 4):
        if (pixels[..., -1] != 2**header.bits - 1).any():
            raise ValueError("transparent pixels")
        pixels = pixels[..., :-1]
    return _scale(pixels, 16 if header.bits == 16 else 8)


def _scale(pixels: NDArray[np.generic], bits: int) -> NDArray[np.float32]:
    return pixels.reshape(*pixels.shape[:2], -1).astype(np.float32) / np.float32(2**bits - 1)


def _as_picture(png: PngHeader) -> PictureHeader:
    return PictureHeader(3 if png.palette or png.samples > 2 else 1, png.height, png.width)


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error).split("<", maxsplit=1)[0].strip() or type(error).__name__


def _broken(path: Path, why: str) -> DataError:
    needed = f"a PNG or JPEG file, gray or RGB, of {_MOST} pixels or fewer"
    return DataError(got=f"{path}, which {why}", needed=needed, fix=_FIX)
