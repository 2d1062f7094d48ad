"""What every accepted item must be, whatever file it came from."""


def whole_item(item):
    """Finite, and masks within their range."""
    image = item["image"]
    assert image.ndim == 3 and image.isfinite().all()
    if "mask" in item:
        assert item["mask"].shape == (1, *image.shape[1:])
        assert item["mask"].min() >= 0 and item["mask"].max() <= 1
    if "boxes" in item:
        assert item["boxes"].isfinite().all()
