import pytest
import torch

from attribguard.auditing.batches import read_batch
from attribguard.errors import RangeError, ShapeError, TypeMismatchError

IMAGES, TARGETS = torch.rand(3, 1, 4, 4), torch.tensor([0, 1, 1])


def mask(*corners):
    """1 on so many pixels of the first row, for each image."""
    masks = torch.zeros(3, 1, 4, 4)
    for image, count in zip(masks, corners, strict=True):
        image.flatten()[:count] = 1
    return masks


def test_a_pair_has_no_regions_and_names_go_on_counting():
    batch = read_batch((IMAGES, TARGETS), 7)
    assert not batch.regions.any() and batch.groups == []
    assert batch.names == ["image 7", "image 8", "image 9"]


def test_masks_that_are_full_or_empty_say_nothing():
    batch = read_batch([IMAGES, TARGETS, mask(2, 16, 0)], 0)
    assert batch.regions.flatten(1).sum(1).tolist() == [2, 0, 0]
    assert torch.equal(read_batch([IMAGES, TARGETS, mask(2, 16, 0)[:, 0]], 0).regions, batch.regions)


def test_images_that_are_said_not_to_be_annotated_have_no_region():
    given = {"image": IMAGES, "target": TARGETS, "mask": mask(2, 3, 4), "annotated": torch.tensor([True, False, True])}
    assert read_batch(given, 0).regions.flatten(1).sum(1).tolist() == [2, 0, 4]


def test_boxes_are_regions_and_those_that_fill_up_are_none():
    boxes = torch.tensor([[[0.0, 0, 2, 1], [0, 0, 0, 0]], [[0, 0, 1, 1], [3, 3, 4, 4]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    kinds = torch.tensor([[0, -1], [2, 1], [-1, -1]])
    batch = read_batch({"image": IMAGES, "target": TARGETS, "boxes": boxes, "box_classes": kinds}, 0)
    assert batch.regions.flatten(1).sum(1).tolist() == [2, 2, 0]
    assert batch.regions[1, 0, 0] and batch.regions[1, 3, 3]


def test_groups_and_files_become_names():
    batch = read_batch({"image": IMAGES, "target": TARGETS, "group": torch.tensor([5, 5, 6]), "file": list("abc")}, 0)
    assert batch.groups == ["5", "5", "6"] and batch.names == ["a", "b", "c"]
    assert batch.first(2).names == ["a", "b"] and len(batch.first(2).images) == 2


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (IMAGES, TypeMismatchError, "a batch that is a Tensor"),
        ({"picture": IMAGES}, TypeMismatchError, r"\['picture'\]"),
        ((IMAGES[0], TARGETS), ShapeError, r"images of shape \(1, 4, 4\)"),
        (((IMAGES * 255).byte(), TARGETS), ShapeError, r"torch\.uint8"),
        ((IMAGES, TARGETS.float()), ShapeError, "one class an image"),
        ((IMAGES, torch.zeros(3, 6)), ShapeError, "one class an image"),
        ((IMAGES, TARGETS - 1), RangeError, "class -1"),
        ((IMAGES, TARGETS, torch.ones(3, 1, 5, 4)), ShapeError, r"masks of shape \(3, 1, 5, 4\)"),
        ({"image": IMAGES, "target": TARGETS, "file": ["a"]}, ShapeError, "1 of 'file' for 3 images"),
    ],
)
def test_what_cannot_be_read_is_refused(given, error, words):
    with pytest.raises(error, match=words):
        read_batch(given, 0)
