"""Slow loops, written from the equations."""

import torch


def outside_by_loops(gradient, mask):
    """For each image the values (1 - m) * g, one after the other."""
    n, channels, height, width = gradient.shape
    return [
        [
            (1 - mask[i, 0, y, x].item()) * gradient[i, c, y, x].item()
            for c in range(channels)
            for y in range(height)
            for x in range(width)
        ]
        for i in range(n)
    ]


def cam_by_loops(features, gradient, method):
    n, channels, height, width = features.shape
    cam = torch.zeros(n, height, width, dtype=features.dtype)
    for i in range(n):
        for c in range(channels):
            average = sum(gradient[i, c].flatten().tolist()) / (height * width)
            for y in range(height):
                for x in range(width):
                    weight = average if method == "gradcam" else gradient[i, c, y, x]
                    cam[i, y, x] += weight * features[i, c, y, x]
    return cam


def log_softmax_by_loops(row):
    top = max(row)
    total = top + torch.tensor([value - top for value in row], dtype=torch.float64).exp().sum().log().item()
    return [value - total for value in row]
