"""Writes IDX files byte by byte, from the description of the format alone."""

import gzip


def idx_bytes(lengths, payload, *, start=None):
    """Two zero bytes, 8 for unsigned bytes, the number of axes, each length as four bytes, the highest first."""
    start = bytes([0, 0, 8, len(lengths)]) if start is None else start
    return start + b"".join(length.to_bytes(4, "big") for length in lengths) + bytes(payload)


def write_idx(path, lengths, payload, **options):
    path.write_bytes(gzip.compress(idx_bytes(lengths, payload, **options), 1))
    return path


def write_fashion(folder, train, test):
    """The four files of Fashion-MNIST from two pairs of arrays, images (N, H, W) and labels (N,)."""
    folder.mkdir(exist_ok=True)
    for prefix, (images, labels) in {"train": train, "t10k": test}.items():
        write_idx(folder / f"{prefix}-images-idx3-ubyte.gz", images.shape, images.tobytes())
        write_idx(folder / f"{prefix}-labels-idx1-ubyte.gz", labels.shape, labels.tobytes())
    return folder
