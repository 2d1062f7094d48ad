"""Scores: one number an image, for classes, one output and several labels."""

import pytest
import torch
import torch.nn.functional as F

from attribguard.errors import RangeError, ShapeError
from attribguard.functional.scores import SCORES, logit_weights, named_score
from tests.functional.oracles import log_softmax_by_loops

LOGITS = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]], dtype=torch.float64)
CLASSES = torch.tensor([2, 1])
LABELS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def test_scores_of_exclusive_classes():
    log_p = [log_softmax_by_loops(row) for row in LOGITS.tolist()]
    expected = {
        "target": [0.5, 3.0],
        "contrast": [abs(0.5 - 1.0), 3.0],
        "log_prob": [log_p[0][2], log_p[1][1]],
        "log_probs": [sum(row) for row in log_p],
    }
    for name, values in expected.items():
        torch.testing.assert_close(SCORES[name](LOGITS, CLASSES), torch.tensor(values, dtype=torch.float64), msg=name)


def test_contrast_of_two_classes_is_the_papers():
    two = LOGITS[:, :2]
    torch.testing.assert_close(SCORES["contrast"](two, torch.tensor([0, 1])), (two[:, 1] - two[:, 0]).abs())


def test_scores_of_independent_labels():
    p = LOGITS.sigmoid()
    expected = {
        "target": ((2 * LABELS - 1) * LOGITS).sum(1),
        "contrast": LOGITS.abs().sum(1),
        "log_prob": (LABELS * p.log() + (1 - LABELS) * (1 - p).log()).sum(1),
        "log_probs": (p.log() + (1 - p).log()).sum(1),
    }
    for name, values in expected.items():
        torch.testing.assert_close(SCORES[name](LOGITS, LABELS), values, msg=name)


@pytest.mark.parametrize("shapes", [((2,), (2,)), ((2, 1), (2,)), ((2, 1), (2, 1)), ((2,), (2, 1))])
def test_one_output_is_one_label_in_every_shape(shapes):
    z, y = torch.tensor([0.3, -2.0]), torch.tensor([0, 1])
    for name in ("target", "contrast", "log_prob", "log_probs"):
        ours = SCORES[name](z.view(shapes[0]), y.view(shapes[1]))
        torch.testing.assert_close(ours, SCORES[name](z[:, None], y[:, None].float()))
    torch.testing.assert_close(
        SCORES["log_prob"](z, y), -F.binary_cross_entropy_with_logits(z, y.float(), reduction="none")
    )


def test_rrr_of_one_output_is_not_silently_constant():
    z = torch.tensor([[0.3]], requires_grad=True)
    (gradient,) = torch.autograd.grad(SCORES["log_probs"](z, torch.tensor([1])).sum(), z)
    assert gradient.abs() > 0.1


def test_projection_is_fresh_and_normal():
    assert not torch.equal(SCORES["projection"](LOGITS, CLASSES), SCORES["projection"](LOGITS, CLASSES))
    draws = torch.stack([logit_weights("projection", LOGITS, CLASSES) for _ in range(2000)])
    assert draws.mean().abs() < 0.03 and (draws.std() - 1).abs() < 0.03


def test_logit_weights_reproduce_the_linear_scores():
    for target in (CLASSES, LABELS):
        weights = logit_weights("target", LOGITS, target)
        torch.testing.assert_close((weights * LOGITS).sum(1), SCORES["target"](LOGITS, target))
    torch.testing.assert_close((logit_weights("predicted", LOGITS, CLASSES) * LOGITS).sum(1), LOGITS.amax(1))
    torch.testing.assert_close((logit_weights("predicted", LOGITS, LABELS) * LOGITS).sum(1), LOGITS.abs().sum(1))


def test_half_precision_scores_are_float32():
    assert SCORES["contrast"](LOGITS.half(), CLASSES).dtype == torch.float32


def test_unknown_scores_and_targets_of_another_form_are_refused():
    with pytest.raises(RangeError, match="log_probs"):
        named_score("softmax")
    with pytest.raises(RangeError, match="projection"):
        logit_weights("contrast", LOGITS, CLASSES)
    with pytest.raises(ShapeError, match="one label for each logit"):
        SCORES["target"](LOGITS, LABELS[:, :2])
