"""The losses, slowly: Li et al., Eq. 1 in numbers of 150 digits, and Hirata and Okita, Eqs. 1 to 3 as loops.

Eq. 1 is written as it is printed, from p = 1 / (1 + exp(-z)), and its derivative is a difference quotient; with so many
digits neither needs care at logits where a float's p is 0 or 1. Nothing here may import `attribguard`.
"""

import math
from decimal import Decimal, localcontext

import numpy as np

DIGITS = 150
STEP = Decimal(10) ** -30


def weights(kind, p, *, positive=1, negative=1, alpha=None, gamma=2.0, beta=0.9999, normalize=False):
    """w+ and w- of Sec. 3.1 for one label with probability p and these counts."""
    gamma, beta, positive, negative = Decimal(gamma), Decimal(beta), Decimal(int(positive)), Decimal(int(negative))
    if kind == "bce":
        return Decimal(1), Decimal(1)
    if kind == "weighted_bce":
        return negative / (positive + negative), positive / (positive + negative)
    if kind == "focal":
        of_positive, of_negative = (Decimal(1), Decimal(1)) if alpha is None else (Decimal(alpha), 1 - Decimal(alpha))
    else:
        of_positive = (1 - beta) / (1 - beta ** max(positive, Decimal(1)))
        of_negative = (1 - beta) / (1 - beta ** max(negative, Decimal(1)))
        if normalize:
            total = of_positive + of_negative
            of_positive, of_negative = 2 * of_positive / total, 2 * of_negative / total
    return of_positive * (1 - p) ** gamma, of_negative * p**gamma


def loss(kind, z, y, **settings):
    """Eq. 1 for one logit and label."""
    p = 1 / (1 + (-z).exp())
    w_positive, w_negative = weights(kind, p, **settings)
    return -(w_positive * y * p.ln() + w_negative * (1 - y) * (1 - p).ln())


def elementwise(kind, logits, targets, *, positive=None, negative=None, slope=False, **settings):
    """(N, K): the loss of each logit, or its derivative; counts are sequences of K numbers."""
    out = np.zeros(logits.shape)
    with localcontext() as context:
        context.prec = DIGITS
        for n, k in np.ndindex(*logits.shape):
            counts = {} if positive is None else {"positive": positive[k], "negative": negative[k]}
            z, y = Decimal(float(logits[n, k])), int(targets[n, k])
            if slope:
                above, below = (loss(kind, z + step, y, **counts, **settings) for step in (STEP, -STEP))
                out[n, k] = float((above - below) / (2 * STEP))
            else:
                out[n, k] = float(loss(kind, z, y, **counts, **settings))
    return out


def _pixel(z, label):
    """(p, q, -log q of the label) of one pixel: over its classes, or over the foreground of a single channel."""
    scores = [0.0, *z] if len(z) == 1 else list(z)
    total = sum(math.exp(score) for score in scores)
    classes = [1] if len(z) == 1 else range(len(z))
    p = [float(label == k) for k in classes]
    q = [math.exp(scores[k]) / total for k in classes]
    return p, q, math.log(total) - scores[label]


def _dice(pixels, squared, smooth):
    """Eq. 2, smoothed, for each class of a list of pixels; the mean over the classes."""
    values = []
    for k in range(len(pixels[0][0])):
        overlap = sum(p[k] * q[k] for p, q, _ in pixels)
        size = sum((p[k] ** 2 + q[k] ** 2) if squared else (p[k] + q[k]) for p, q, _ in pixels)
        values.append(1 - (2 * overlap + smooth) / (size + smooth))
    return sum(values) / len(values)


def dice_ce(logits, target, *, ce=0.4, dice=0.6, over="sample", squared=False, ignore_index=-100, smooth=1e-5):
    """(N,): Eq. 3 for each image; with over="batch" each image with a counted pixel has the Dice of all pixels."""
    images = []
    for z, t in zip(logits, target, strict=True):
        counted = [(i, j) for i, j in np.ndindex(*t.shape) if t[i, j] != ignore_index]
        images.append([_pixel(z[:, i, j], t[i, j]) for i, j in counted])
    everywhere = [pixel for pixels in images for pixel in pixels]
    out = []
    for pixels in images:
        if not pixels:
            out.append(0.0)
            continue
        entropy = sum(surprise for _, _, surprise in pixels) / len(pixels)
        out.append(ce * entropy + dice * _dice(pixels if over == "sample" else everywhere, squared, smooth))
    return np.array(out)
