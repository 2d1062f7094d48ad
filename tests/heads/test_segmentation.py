"""The segmentation head: its loss by loops over pixels, its target, which rows and pixels count, what it refuses."""

import copy

import numpy as np
import pytest
import torch

import attribguard as ag
from attribguard.errors import RangeError, ShapeError, TypeMismatchError
from tests.heads.small import PARTLY, guarded, strided
from tests.losses import oracles
from tests.oracles import as_array

FORMS = pytest.mark.parametrize(
    "form",
    [{}, {"squared": True}, {"over": "batch"}, {"over": "batch", "squared": True}, {"ce": 1.0, "dice": 0.0}],
    ids=str,
)


def expected(out, segmentation, counted, name="segmentation", ignore_index=-100, **form):
    """The mean over the batch, of the rows that count alone."""
    rows = counted.tolist()
    values = oracles.dice_ce(
        as_array(out.predictions[name][counted]), segmentation[counted].numpy(), ignore_index=ignore_index, **form
    )
    return values.sum() / len(rows)


def segmenting(classes=3, model=None, **settings):
    """A guard of one head in float64."""
    return guarded([ag.SegmentationHead(classes, 1.0, **settings)], (model or strided()).double())


def labelled(classes=3, n=4, height=12, width=12):
    x = torch.rand(n, 1, height, width, dtype=torch.float64)
    return x, torch.arange(n) % 2, torch.randint(0, max(classes, 2), (n, height, width))


@FORMS
@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("annotated", [None, PARTLY])
def test_the_term_is_the_equations_over_the_annotated_rows(form, classes, annotated):
    guard = segmenting(classes, **form)
    x, y, segmentation = labelled(classes)
    if annotated is not None:
        segmentation[~annotated] = -7  # nonsense on the others
    out = guard(x, y, segmentation=segmentation, annotated=annotated)
    assert out.predictions["segmentation"].shape == (4, classes, 12, 12)
    counted = torch.ones(4).bool() if annotated is None else annotated
    np.testing.assert_allclose(
        out.terms["segmentation"].item(), expected(out, segmentation, counted, **form), rtol=1e-9
    )


@pytest.mark.parametrize("ignore_index", [-100, 255, 1])
@pytest.mark.parametrize("over", ["sample", "batch"])
def test_ignored_pixels_do_not_count(ignore_index, over):
    guard = segmenting(ignore_index=ignore_index, over=over)
    x, y, segmentation = labelled()
    segmentation[torch.rand(segmentation.shape) < 0.4] = ignore_index
    segmentation[2] = ignore_index
    out = guard(x, y, segmentation=segmentation)
    everyone = torch.ones(4).bool()
    np.testing.assert_allclose(
        out.terms["segmentation"].item(),
        expected(out, segmentation, everyone, ignore_index=ignore_index, over=over),
        rtol=1e-9,
    )
    (gradient,) = torch.autograd.grad(out.loss, out.predictions["segmentation"])
    ignored = (segmentation == ignore_index)[:, None].expand_as(gradient)
    assert not gradient[ignored].any()
    assert gradient[~ignored].all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int16, torch.int32], ids=str)
def test_segmentations_of_every_integer_type_are_accepted(dtype):
    guard = segmenting()
    x, y, segmentation = labelled()
    terms = [
        guard(x, y, segmentation=labels).terms["segmentation"] for labels in (segmentation, segmentation.to(dtype))
    ]
    assert torch.equal(*terms)


@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("annotated", [None, PARTLY, {"mask": PARTLY}])
def test_the_mask_is_the_target_where_no_segmentation_is_given(classes, annotated):
    guard = segmenting(classes)
    x, y, _ = labelled(classes)
    mask = torch.rand(4, 12, 12)
    mask[0, 0, :3] = torch.tensor([0.5, 0.4999, 1.0])
    counted = torch.ones(4).bool() if annotated is None else PARTLY
    if annotated is not None:
        mask[~PARTLY] = float("nan")
    out = guard(x, y, mask=mask, annotated=annotated)
    np.testing.assert_allclose(
        out.terms["segmentation"].item(), expected(out, (mask >= 0.5).long(), counted), rtol=1e-9
    )
    assert out.terms["segmentation"] > 0


def test_a_segmentation_goes_before_the_mask_and_has_rows_of_its_own():
    guard = segmenting(2)
    x, y, segmentation = labelled(2)
    mask = torch.zeros(4, 12, 12)
    rows = {"mask": ~PARTLY, "segmentation": PARTLY}
    mask[:, 3:6] = 1
    out = guard(x, y, mask=mask, segmentation=segmentation, annotated=rows)
    np.testing.assert_allclose(out.terms["segmentation"].item(), expected(out, segmentation, PARTLY), rtol=1e-9)
    # A segmentation that counts nowhere is still the target: rows that have a mask alone do not fall back on it.
    nobody = {"mask": torch.ones(4).bool(), "segmentation": torch.zeros(4).bool()}
    assert guard(x, y, mask=mask, segmentation=segmentation, annotated=nobody).terms["segmentation"] == 0


def test_a_mask_is_no_target_for_three_classes():
    x, y, _ = labelled()
    assert segmenting(3)(x, y, mask=torch.ones(4, 12, 12)).terms["segmentation"] == 0


def test_what_an_image_without_annotation_holds_does_not_reach_the_term():
    """A broken image, such as one that could not be read."""
    guard = segmenting(2)
    x, _, segmentation = labelled(2)
    guard.criterion = "none"
    clean = guard(x, None, segmentation=segmentation, annotated=PARTLY).terms["segmentation"]
    x[~PARTLY] = float("nan")
    out = guard(x, None, segmentation=segmentation, annotated=PARTLY)
    assert out.predictions["segmentation"][~PARTLY].isnan().all()
    assert torch.equal(out.terms["segmentation"], clean)


def test_every_head_reads_the_same_segmentation():
    guard = guarded(
        [ag.SegmentationHead(3, 1.0, name=name, over=name) for name in ("sample", "batch")], strided().double()
    )
    x, y, segmentation = labelled()
    out = guard(x, y, segmentation=segmentation)
    for name in ("sample", "batch"):
        value = expected(out, segmentation, torch.ones(4).bool(), name, over=name)
        np.testing.assert_allclose(out.terms[name].item(), value, rtol=1e-9)


@pytest.mark.parametrize(
    ("classes", "wrong", "words"),
    [(3, 3, ["0 to 2"]), (3, -1, ["-1", "0 to 2"]), (1, 2, ["0 to 1"]), (2, 255, ["255", "0 to 1"])],
)
def test_a_class_out_of_range_is_refused_before_anything_runs(classes, wrong, words):
    guard = segmenting(classes, model=strided(norm=True))
    passes = []
    guard.model[0].register_forward_hook(lambda module, args, out: passes.append(1))
    x, y, segmentation = labelled(classes)
    segmentation[2, 3, 4] = wrong
    before, random = copy.deepcopy(guard.state_dict()), torch.get_rng_state()
    with pytest.raises(RangeError) as caught:
        guard(x, y, segmentation=segmentation)
    assert all(word in str(caught.value) for word in words), caught.value
    assert passes == []
    assert all(torch.equal(value, before[key]) for key, value in guard.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    guard(x, y, segmentation=segmentation, annotated=PARTLY.roll(1))  # row 2 does not count


SEGMENTATION = torch.ones(4, 12, 12).long()


@pytest.mark.parametrize(
    ("segmentation", "error", "words"),
    [
        (SEGMENTATION.float(), TypeMismatchError, ["torch.float32", ".long()"]),
        (SEGMENTATION.bool(), TypeMismatchError, ["torch.bool", ".long()"]),
        (SEGMENTATION.to(torch.complex64), TypeMismatchError, ["complex64"]),
        (SEGMENTATION.tolist(), TypeMismatchError, ["segmentation as list"]),
        (SEGMENTATION[:3], ShapeError, ["(3, 12, 12)", "(4, 12, 12)"]),
        (SEGMENTATION[:, :6, :6], ShapeError, ["(4, 6, 6)", "(4, 12, 12)"]),
        (SEGMENTATION[:, None], ShapeError, ["(4, 1, 12, 12)", "(4, 12, 12)"]),
        (SEGMENTATION[0], ShapeError, ["(12, 12)", "(4, 12, 12)"]),
        (SEGMENTATION.to("meta"), TypeMismatchError, ["meta", "cpu"]),
    ],
)
def test_a_segmentation_that_does_not_fit_is_refused_before_anything_runs(segmentation, error, words):
    guard = segmenting(2, model=strided(norm=True))
    before = copy.deepcopy(guard.state_dict())
    x, y, _ = labelled()
    with pytest.raises(error) as caught:
        guard(x, y, segmentation=segmentation)
    assert all(word in str(caught.value) for word in words), caught.value
    assert all(torch.equal(value, before[key]) for key, value in guard.state_dict().items())


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"num_classes": 0}, RangeError, "num_classes=0"),
        ({"num_classes": 2.0}, RangeError, "num_classes=2.0"),
        ({"num_classes": True}, RangeError, "num_classes=True"),
        ({"ignore_index": 255.0}, RangeError, "ignore_index=255.0"),
        ({"ignore_index": None}, RangeError, "ignore_index=None"),
        ({"ce": -0.1}, RangeError, "ce"),
        ({"dice": float("nan")}, RangeError, "dice"),
        ({"over": "image"}, RangeError, "over='image'"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(settings, error, words):
    with pytest.raises(error, match=words):
        ag.SegmentationHead(**{"num_classes": 2, "weight": 1.0, **settings})


def test_it_shows_what_it_is():
    head = ag.SegmentationHead(4, 0.5, over="batch", squared=True, name="organs")
    shown = "weight=0.5, name='organs', num_classes=4, ce=0.4, dice=0.6, over='batch', squared=True"
    assert repr(head) == f"SegmentationHead({shown})"
