"""What the library's numbers are held against: plain loops over numpy arrays in float64, written from the papers.

Nothing here may import `attribguard`, and nothing here cares about speed.
"""

import math

import numpy as np

# `torch.nn.PairwiseDistance`, by which the published ActDiff code measures rows, adds this to every difference.
PAIRWISE_EPS = 1e-6


def as_array(tensor):
    """A tensor as a float64 array."""
    return tensor.detach().double().numpy()


def _groups(difference, norm):
    """One image's difference in one layer, cut into the vectors whose lengths are taken."""
    if norm == "rows":
        return [row + PAIRWISE_EPS for row in difference.reshape(-1, difference.shape[-1])]
    return [difference.ravel()]


def _length(vector, norm):
    total = 0.0
    for value in vector:
        total += float(value) * float(value)
    return math.sqrt(total / len(vector)) if norm == "rms" else math.sqrt(total)


def actdiff(clean, corrupted, norm):
    """Viviano et al., Eq. 1, for each image: the mean length of the activations' differences.

    "l2": the mean over layers of the length of the whole layer. "rms": the same of its root mean square. "rows": the
    mean over all rows (last axis) of all layers of the row's length, as in the published code.
    """
    values = []
    for n in range(len(clean[0])):
        lengths = []
        for a, b in zip(clean, corrupted, strict=True):
            lengths += [_length(vector, norm) for vector in _groups(a[n] - b[n], norm)]
        values.append(sum(lengths) / len(lengths))
    return np.array(values)


def actdiff_gradient(clean, corrupted, norm, upstream):
    """Gradients of `sum(upstream * actdiff)`, for each clean and for each corrupted layer.

    The length of v has the derivative v / |v|, its root mean square v / (len(v) * rms).
    """
    to_clean = [np.zeros_like(a) for a in clean]
    for n in range(len(clean[0])):
        groups = [_groups(a[n] - b[n], norm) for a, b in zip(clean, corrupted, strict=True)]
        count = sum(len(vectors) for vectors in groups)
        for layer, vectors in enumerate(groups):
            pieces = []
            for vector in vectors:
                length = _length(vector, norm)
                scale = length * len(vector) if norm == "rms" else length
                pieces.append(vector / scale * upstream[n] / count)
            to_clean[layer][n] = np.concatenate(pieces).reshape(clean[layer][n].shape)
    return to_clean, [-g for g in to_clean]


def pixels_where(image, where):
    """The colours of the pixels at which `where` holds, as a sorted list of tuples: a multiset."""
    _, height, width = image.shape
    return sorted(tuple(image[:, i, j].tolist()) for i in range(height) for j in range(width) if where[i, j])


def mean_outside(image, inside):
    """(C, H, W): every pixel outside replaced by its channel's mean over the outside."""
    out = np.array(image)
    for c, channel in enumerate(image):
        outside = [channel[i, j] for i, j in np.ndindex(channel.shape) if not inside[i, j]]
        for i, j in np.ndindex(channel.shape):
            if not inside[i, j]:
                out[c, i, j] = sum(outside) / len(outside)
    return out


def dilated(mask, radius):
    """(H, W): the largest value within `radius` steps, rows and columns counted apart."""
    height, width = mask.shape
    out = np.zeros_like(mask)
    for i, j in np.ndindex(mask.shape):
        rows = range(max(0, i - radius), min(height, i + radius + 1))
        columns = range(max(0, j - radius), min(width, j + radius + 1))
        out[i, j] = max(mask[k, m] for k in rows for m in columns)
    return out


def boxes_filled(boxes, size):
    """(H, W): 1 at the pixels whose centre lies in one of the boxes (x0, y0, x1, y1)."""
    out = np.zeros(size)
    for i, j in np.ndindex(*size):
        for x0, y0, x1, y1 in boxes:
            if x0 <= j + 0.5 < x1 and y0 <= i + 0.5 < y1:
                out[i, j] = 1
    return out


def disc(size, radius):
    """(H, W): 1 at the pixels whose centre is no further than `radius` from the centre of the image."""
    out = np.zeros(size)
    for i, j in np.ndindex(*size):
        out[i, j] = float(math.hypot(i + 0.5 - size[0] / 2, j + 0.5 - size[1] / 2) <= radius)
    return out


def shares(mask, size):
    """(h, w): the mean of the mask over the pixels that each cell of a coarser grid touches."""
    height, width = mask.shape
    out = np.zeros(size)
    for i, j in np.ndindex(*size):
        touched = []
        for k, m in np.ndindex(mask.shape):
            # Pixel k spans [k, k + 1), cell i spans [i, i + 1) * height / h; compared in whole numbers.
            in_rows = k * size[0] < (i + 1) * height and (k + 1) * size[0] > i * height
            in_columns = m * size[1] < (j + 1) * width and (m + 1) * size[1] > j * width
            if in_rows and in_columns:
                touched.append(mask[k, m])
        out[i, j] = sum(touched) / len(touched)
    return out


def tokens_as_map(tokens, prefix, grid):
    """(L, C) tokens, row by row behind `prefix` others, as (C, h, w)."""
    out = np.zeros((tokens.shape[1], *grid))
    for i, j in np.ndindex(*grid):
        out[:, i, j] = tokens[prefix + i * grid[1] + j]
    return out
