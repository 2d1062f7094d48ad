"""Damage to a file that keeps as much of its structure as it takes to get past the first check."""

import gzip
import io
import math
import random
import struct
import warnings
import zipfile
import zlib

from tests.contracts.fuzz.structured import damaged_json, damaged_table
from tests.data.picture_files import chunk

EXTREMES = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)
ODD_FLOATS = (math.nan, math.inf, -math.inf, 0.0, -0.0, 1e308, -1e308, 1e-308, 1e30, 3.4e38, 2.0**63)
TOKENS = (
    b"\0", b"\xff\xff\xff\xff", b"\xff\xda", b"\xff\xd9", b"IDAT", b"IEND", b"PK\x01\x02", b"PK\x03\x04", b"SQ", b"UN",
    b"\xfe\xff\x00\xe0\xff\xff\xff\xff", b"cos\nsystem\n", b"\x80\x02", b"R.", b"NaN", b"1e999", b"../", b"9" * 12,
)  # fmt: skip
BOMB = bytes(2**22)


def damaged(name, content, others, rng):
    """The content of a file after one to three accidents or attacks.

    Args:
        name: whose ending says what the file is made of.
        content: of a valid file.
        others: contents of other valid files of that ending.
        rng: decides.
    """
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        inner = _INNER.get(next((end for end in _INNER if name.endswith(end)), ""), _bytes)
        kind = inner if rng.random() < 0.75 else _bytes
        try:
            content = kind(content, others, rng)
        except Exception:  # what an earlier accident left may have any structure or none
            content = _bytes(content, others, rng)
    return content


def _bytes(content, others, rng):
    """Flip, overwrite, cut, insert, repeat, or take the rest from another file."""
    data = bytearray(content)
    at = min(int(rng.expovariate(8 / (len(data) + 1))), len(data)) if rng.random() < 0.6 else rng.randint(0, len(data))
    match rng.randrange(7):
        case 0 if data:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        case 1:
            data[at : at + 1] = rng.randbytes(rng.randint(0, 4))
        case 2:
            del data[at:]
        case 3:
            data[at:at] = rng.choice(TOKENS) * rng.choice((1, 1, 2, 1000))
        case 4:
            end = at + rng.randint(0, 64)
            data[at:at] = data[at:end] * rng.choice((1, 2, 500))
        case 5 if others:
            other = rng.choice(others)
            data[at:] = other[rng.randint(0, len(other)) :]
        case _:
            _number(data, at, rng)
    return bytes(data)


def _number(data, at, rng):
    """An extreme number in the place of what stood there, of any width and order of bytes."""
    order = rng.choice("<>")
    if rng.random() < 0.3:
        form, value = rng.choice("fd"), rng.choice(ODD_FLOATS)
        value = math.copysign(math.inf, value) if form == "f" and abs(value) > 3.4e38 else value
        new = struct.pack(order + form, value)
    else:
        width = rng.choice((1, 2, 2, 4, 4, 8))
        value = rng.choice(EXTREMES) + rng.choice((0, 0, 0, 1, -1))
        new = (value % 2 ** (8 * width)).to_bytes(width, "little" if order == "<" else "big")
    at -= at % len(new) if rng.random() < 0.7 else 0
    data[at : at + len(new)] = new


def _packed(content, others, rng):
    """What gzip packed, damaged within; or more behind it."""
    if rng.random() < 0.1:
        return content + gzip.compress(BOMB * rng.randint(1, 4), 1, mtime=0)
    inner = _bytes(gzip.decompress(content), [gzip.decompress(other) for other in others[:2]], rng)
    return gzip.compress(inner, 1, mtime=0)


def _png(content, _, rng):
    """Chunks damaged, moved, repeated or added, most with a checksum that holds."""
    chunks, at = [], 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    place = rng.randrange(len(chunks))
    kind, data = chunks[place]
    match rng.randrange(6):
        case 0:
            header = bytearray(chunks[0][1])
            _number(header, rng.randrange(13), rng)
            chunks[0] = (b"IHDR", bytes(header[:13]))
        case 1:
            chunks[place] = kind, _bytes(data, [], rng)
        case 2:
            chunks.insert(rng.randrange(len(chunks) + 1), rng.choice(_chunks(rng)))
        case 3:
            chunks.insert(rng.randrange(len(chunks) + 1), chunks[place])
        case 4:
            del chunks[place]
        case 5:
            chunks = [
                (one, zlib.compress(_bytes(zlib.decompress(what), [], rng)) if one == b"IDAT" else what)
                for one, what in chunks
            ]
    whole = content[:8] + b"".join(chunk(*one) for one in chunks)
    return whole if rng.random() < 0.9 else _bytes(whole, [], rng)


def _chunks(rng):
    bomb = zlib.compress(BOMB, 9)
    return [
        (b"zTXt", b"key\0\0" + bomb), (b"iTXt", b"key\0\1\0\0\0" + bomb), (b"iCCP", b"name\0\0" + bomb),
        (b"tRNS", rng.randbytes(rng.randint(0, 9))), (b"PLTE", rng.randbytes(rng.randint(0, 9))),
        (b"acTL", struct.pack(">II", rng.choice(EXTREMES) % 2**32, 0)), (b"fcTL", rng.randbytes(26)),
        (b"fdAT", rng.randbytes(9)), (b"eXIf", rng.randbytes(40)), (b"gAMA", rng.randbytes(rng.randint(0, 5))),
        (b"pHYs", rng.randbytes(9)), (b"cHRM", rng.randbytes(rng.randint(0, 33))), (b"sRGB", b""), (b"IDAT", bomb),
        (rng.randbytes(4), rng.randbytes(5)),
    ]  # fmt: skip


def _archive(content, _, rng):
    """Members of a zip damaged, renamed, repeated, blown up or packed otherwise."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    place = rng.randrange(len(members))
    name, data = members[place]
    match rng.randrange(7):
        case 0:
            members[place] = rng.choice(("../" + name, "/" + name, name.upper(), "", name + ".npy")), data
        case 1:
            members[place] = name, data + BOMB * rng.randint(1, 4)
        case 2:
            members.insert(rng.randrange(len(members) + 1), members[place])
        case 3:
            del members[place]
        case 4 if data.startswith(b"\x93NUMPY"):
            members[place] = name, _array(data, rng)
        case _:
            members[place] = name, _bytes(data, [other for _, other in members], rng)
    file = io.BytesIO()
    methods = (*[zipfile.ZIP_STORED] * 12, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w", rng.choice(methods)) as archive:
        warnings.simplefilter("ignore")  # of names that are there twice
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name or "x"), data, rng.choice(methods))
    whole = file.getvalue()
    return whole if rng.random() < 0.8 else _bytes(whole, [], rng)


def _array(data, rng):
    """A .npy file under another header."""
    size = struct.unpack("<H", data[8:10])[0]
    shape = rng.choice(("(1000000, 1000000)", "(-1,)", "()", "(0, 4, 4)", "(2, 4, 4, 1)", "(10**12,)", "(True,)", "2"))
    kind = rng.choice(("|u1", "|O", "<i8", "<f8", "<U9", "|V8", "<M8[s]", "|b1", "xx", "<c16", "|S0"))
    descr = rng.choice((repr(kind), f"[('a', '{kind}')]", f"('{kind}', 3)", "[]", "'|u1'", "'|u1'"))
    fields = [f"'descr': {descr}", f"'fortran_order': {rng.choice(('True', 'False', '3'))}", f"'shape': {shape}"]
    header = "{" + ", ".join(fields[rng.randrange(8) // 7 :]) + rng.choice(("}", ", 1: 2}", "", "}" + "(" * 300)) + "\n"
    version = rng.choice((b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\x09\0"))
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    return data[:6] + version + length + header.encode() + data[10 + size :]


def _text(damage):
    def apply(content, _, rng):
        return damage(content, rng)

    return apply


def _json_lines(content, _, rng):
    lines = content.split(b"\n")
    place = rng.randrange(max(1, len(lines) - 1))
    lines[place] = damaged_json(lines[place], rng)
    return b"\n".join(lines)


_INNER = {
    ".gz": _packed, ".png": _png, ".npz": _archive, ".pt": _archive, ".json": _text(damaged_json),
    ".jsonl": _json_lines, ".csv": _text(damaged_table), ".txt": _text(damaged_table),
}  # fmt: skip


def seeded(seed, number):
    """A generator of its own for each input, so that one input can be made again without those before it."""
    return random.Random(f"{seed}/{number}")
