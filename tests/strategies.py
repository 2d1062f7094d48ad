"""What hypothesis draws: small tensors. Their values come from a drawn seed, so that shrinking works on shapes."""

import torch
from hypothesis import strategies as st

seeds = st.integers(0, 2**31 - 1)
small = st.integers(1, 4)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@st.composite
def layer_pairs(draw, dtype=torch.float64):
    """Activations of two passes: two lists of tensors (N, ...) of 2 to 5 axes."""
    n = draw(small)
    shapes = [(n, *axes) for axes in draw(st.lists(st.lists(small, min_size=1, max_size=4), min_size=1, max_size=3))]
    source = generator(draw(seeds))
    scale = draw(st.sampled_from([0.01, 1.0, 100.0]))
    return tuple([scale * torch.randn(shape, generator=source, dtype=dtype) for shape in shapes] for _ in range(2))


@st.composite
def images_and_masks(draw, max_side=6):
    """Images (N, C, H, W), all of whose values differ, and masks (N, 1, H, W) of 0 and 1, some full or empty."""
    n, channels = draw(small), draw(st.integers(1, 3))
    height, width = draw(st.integers(1, max_side)), draw(st.integers(1, max_side))
    source = generator(draw(seeds))
    values = torch.randperm(n * channels * height * width, generator=source)
    x = values.float().view(n, channels, height, width) - values.numel() / 2
    share = torch.tensor(draw(st.lists(st.sampled_from([0.0, 0.3, 0.7, 1.0]), min_size=n, max_size=n)))
    mask = torch.rand(n, 1, height, width, generator=source) < share.view(n, 1, 1, 1)
    return x, mask.float()


@st.composite
def soft_masks(draw, max_side=7):
    """(N, 1, H, W) in [0, 1], about half of it 0."""
    shape = (draw(st.integers(1, 3)), 1, draw(st.integers(1, max_side)), draw(st.integers(1, max_side)))
    mask = torch.rand(shape, generator=generator(draw(seeds)))
    return mask * (mask > 0.5)


@st.composite
def boxes(draw, height, width, max_boxes=3):
    """A list of boxes (x0, y0, x1, y1) within the image, on quarters of pixels."""

    def span(length):
        ends = st.lists(st.integers(0, 4 * length), min_size=2, max_size=2, unique=True)
        return [end / 4 for end in sorted(draw(ends))]

    def box():
        (x0, x1), (y0, y1) = span(width), span(height)
        return [x0, y0, x1, y1]

    return [box() for _ in range(draw(st.integers(0, max_boxes)))]
