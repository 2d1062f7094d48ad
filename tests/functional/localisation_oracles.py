"""Localisation in slow loops, written from the definitions, one image (nested lists) at a time."""

import math

NAN = float("nan")


def pixels(image):
    return [(y, x) for y in range(len(image)) for x in range(len(image[0]))]


def normalized(image, mode):
    values = [image[y][x] for y, x in pixels(image)]
    low, high = (0.0, max(values)) if mode == "max" else (min(values), max(values))
    if mode == "none":
        return image
    return [[max(value - low, 0.0) / (high - low) for value in row] for row in image]


def is_flat(image):
    return len({image[y][x] for y, x in pixels(image)}) == 1


def overlap(image, region, per):
    """Sum of the map inside over the region's size (per="region") or over the map's sum (per="map")."""
    inside = part = whole = 0.0
    for y, x in pixels(image):
        whole += image[y][x]
        if region[y][x]:
            inside += 1
            part += image[y][x]
    if inside == 0 or is_flat(image):
        return NAN
    return part / inside if per == "region" else part / whole


def overlap_at(image, region, threshold, per):
    hits = size = both = 0
    for y, x in pixels(image):
        hits += image[y][x] >= threshold
        size += bool(region[y][x])
        both += image[y][x] >= threshold and bool(region[y][x])
    whole = size if per == "region" else hits
    return NAN if size == 0 or is_flat(image) or whole == 0 else both / whole


def pointing(image, region, tolerance):
    inside = [place for place in pixels(image) if region[place[0]][place[1]]]
    if not inside or is_flat(image):
        return NAN
    top = max(image[y][x] for y, x in pixels(image))
    tops = [place for place in pixels(image) if image[place[0]][place[1]] == top]
    hits = [place in inside or any(math.dist(place, other) < tolerance for other in inside) for place in tops]
    return sum(hits) / len(hits)


def energy(image, region):
    return overlap([[max(value, 0.0) for value in row] for row in image], region, "map")
