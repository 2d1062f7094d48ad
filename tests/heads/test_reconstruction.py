"""The reconstruction head: its loss by hand, and the corrupted image that it shares with the penalties of a step."""

import copy
import math

import pytest
import torch
from torch import nn

import attribguard as ag
from attribguard.errors import RangeError, TypeMismatchError
from tests.heads.small import PARTLY, annotated_batch, guarded, strided
from tests.oracles import as_array


class Counting:
    """Noise outside the mask, drawn anew in each call; keeps what it gave."""

    def __init__(self):
        self.given = []

    def __call__(self, x, mask):
        self.given.append(torch.where(mask < 0.5, torch.rand_like(x), x))
        return self.given[-1].clone()


class FirstChannel(nn.Module):
    """A decoder without parameters."""

    def forward(self, maps):
        return maps[-1][:, :1]


def passes_of(model):
    seen = []
    model[0].register_forward_hook(lambda module, args, out: seen.append(args[0]))
    return seen


def elements(form, prediction, target):
    """The mean over an image's pixels, one pixel after the other."""
    values = []
    for p, q in zip(prediction.reshape(len(prediction), -1), target.reshape(len(target), -1), strict=True):
        pairs = zip(p.tolist(), q.tolist(), strict=True)
        if form == "mse":
            losses = [(a - b) ** 2 for a, b in pairs]
        else:
            losses = [-b * -math.log1p(math.exp(-a)) - (1 - b) * -math.log1p(math.exp(a)) for a, b in pairs]
        values.append(sum(losses) / len(losses))
    return values


@pytest.mark.parametrize("form", ["mse", "bce"])
@pytest.mark.parametrize("annotated", [None, PARTLY])
def test_the_term_is_the_mean_over_every_images_channels_and_pixels(form, annotated):
    guard = guarded([ag.ReconstructionHead(1.0, loss=form)], strided(3).double(), example_input=(3, 12, 12))
    x, y, mask, _ = annotated_batch(channels=3, dtype=torch.float64)
    out = guard(x, y, mask=mask, annotated=annotated)
    values = elements(form, as_array(out.predictions["reconstruction"]), as_array(x))
    assert out.terms["reconstruction"].item() == pytest.approx(sum(values) / 4, rel=1e-9)


def test_masked_redraws_the_image_with_its_outside_corrupted():
    guard = guarded([ag.ReconstructionHead(1.0, target="masked", corruption=ag.Corruption("mean"))], strided().double())
    x, y, mask, _ = annotated_batch(dtype=torch.float64)
    out = guard(x, y, mask=mask, annotated=PARTLY)
    target = torch.where(PARTLY.view(4, 1, 1, 1), ag.corrupt(x, mask, "mean"), x)  # without a mask, the image
    values = elements("mse", as_array(out.predictions["reconstruction"]), as_array(target))
    assert out.terms["reconstruction"].item() == pytest.approx(sum(values) / 4, rel=1e-9)


def test_masked_without_any_mask_redraws_the_image():
    x, y, *_ = annotated_batch()
    terms = []
    for target in ("input", "masked"):
        torch.manual_seed(0)
        terms.append(guarded([ag.ReconstructionHead(1.0, target=target)])(x, y).terms["reconstruction"])
    assert torch.equal(*terms)


def spying(head):
    """What its loss is given."""
    seen, loss = [], head.loss

    def look(prediction, batch, corrupted):
        seen.append(corrupted)
        return loss(prediction, batch, corrupted)

    head.loss = look
    return seen


def test_masked_redraws_the_very_image_that_the_penalty_compares_with():
    corruption = Counting()
    head = ag.ReconstructionHead(1.0, target="masked")
    seen = spying(head)
    penalties = [ag.ActDiff(1.0, corruption=corruption), ag.ActDiff(1.0, corruption=corruption, norm="l2", name="l2")]
    guard = guarded([head], penalties=penalties)
    passes = passes_of(guard.model)
    x, y, mask, _ = annotated_batch()
    for _ in range(2):
        corruption.given.clear()
        seen.clear()
        passes.clear()
        out = guard(x, y, mask=mask)
        assert len(corruption.given) == len(seen) == 1
        assert len(passes) == 2
        assert torch.equal(seen[0], corruption.given[0])
        assert torch.equal(passes[1], corruption.given[0])
        expected = (out.predictions["reconstruction"] - corruption.given[0]).square().mean()
        torch.testing.assert_close(out.terms["reconstruction"], expected.detach())


def test_masked_shuffles_as_the_penalty_draws_it():
    """ActDiff's term is what it is without the head: the head draws nothing of its own."""
    x, y, mask, _ = annotated_batch()
    terms, states = [], []
    for heads in ([], [ag.ReconstructionHead(1.0, target="masked")]):
        torch.manual_seed(0)
        guard = guarded(heads, penalties=[ag.ActDiff(1.0)])
        torch.manual_seed(5)
        terms.append(guard(x, y, mask=mask).terms["actdiff"])
        states.append(torch.get_rng_state())
    assert torch.equal(*terms)
    assert torch.equal(*states)


def test_the_shuffled_target_keeps_the_inside_and_every_outside_colour():
    head = ag.ReconstructionHead(1.0, target="masked")
    seen = spying(head)
    guard = guarded([head])
    x, y, mask, _ = annotated_batch()
    guard(x, y, mask=mask)
    inside = mask.bool()
    assert torch.equal(seen[0][inside], x[inside])
    assert not torch.equal(seen[0], x)
    for ours, theirs, keep in zip(seen[0], x, inside, strict=True):
        assert torch.equal(ours[~keep].sort().values, theirs[~keep].sort().values)


def test_a_corruption_of_its_own_is_drawn_beside_the_penaltys():
    ours, theirs = Counting(), Counting()
    head = ag.ReconstructionHead(1.0, target="masked", corruption=ag.Corruption(ours))
    seen = spying(head)
    guard = guarded([head], penalties=[ag.ActDiff(1.0, corruption=theirs)])
    passes = passes_of(guard.model)
    x, y, mask, _ = annotated_batch()
    guard(x, y, mask=mask)
    assert (len(ours.given), len(theirs.given), len(passes)) == (1, 1, 2)
    assert torch.equal(seen[0], ours.given[0])
    assert torch.equal(passes[1], theirs.given[0])


@pytest.mark.parametrize("annotated", [None, PARTLY, torch.zeros(4).bool()])
def test_no_corrupted_pass_runs_where_no_penalty_reads_its_features(annotated):
    guard = guarded([ag.ReconstructionHead(1.0, target="masked")], penalties=[ag.GradMask(1.0)])
    x, y, mask, _ = annotated_batch()
    guard(x, y, mask=mask, annotated=annotated)
    passes = passes_of(guard.model)
    guard(x, y, mask=mask, annotated=annotated)
    assert [len(seen) for seen in passes] == [4]


def test_heads_of_equal_corruption_redraw_one_image():
    heads = [ag.ReconstructionHead(1.0, target="masked", name=name) for name in ("a", "b")]
    seen = [spying(head) for head in heads]
    x, y, mask, _ = annotated_batch()
    guarded(heads)(x, y, mask=mask)
    assert torch.equal(seen[0][0], seen[1][0])
    assert not torch.equal(seen[0][0], x)


def test_the_target_carries_no_gradient():
    x, y, mask, _ = annotated_batch()
    x.requires_grad_()
    for target in ("input", "masked"):
        guard = guarded(
            [ag.ReconstructionHead(1.0, target=target, decoder=FirstChannel())], strided(), criterion_weight=0.0
        )
        (gradient,) = torch.autograd.grad(guard(x, y, mask=torch.ones_like(mask)).loss, x)
        leaf = x.detach().clone().requires_grad_()
        through = guard.predict(leaf).predictions["reconstruction"]
        (expected,) = torch.autograd.grad((through - x.detach()).square().mean(), leaf)
        torch.testing.assert_close(gradient, expected)


def test_changing_the_corruption_between_steps_is_noticed():
    head = ag.ReconstructionHead(1.0, target="masked", corruption=ag.Corruption("zero"))
    seen = spying(head)
    guard = guarded([head])
    x, y, mask, _ = annotated_batch()
    for mode in ("zero", "mean"):
        head.corruption = ag.Corruption(mode)
        guard(x, y, mask=mask)
        assert torch.equal(seen[-1], ag.corrupt(x, mask, mode))


@pytest.mark.parametrize(
    ("broken", "words"), [(1.5, ["to 1.5", "[0, 1]"]), (-0.25, ["from -0.25"]), (float("nan"), ["nan"])]
)
def test_images_outside_0_to_1_are_refused_for_bce_before_anything_runs(broken, words):
    guard = guarded([ag.ReconstructionHead(1.0, loss="bce")], strided(norm=True))
    x, y, mask, _ = annotated_batch()
    x[1, 0, 2, 3] = broken
    before = copy.deepcopy(guard.state_dict())
    with pytest.raises(RangeError) as caught:
        guard(x, y, mask=mask)
    assert all(word in str(caught.value) for word in (*words, "loss='bce'")), caught.value
    assert all(torch.equal(value, before[key]) for key, value in guard.state_dict().items())
    guard(x.clamp(0, 1).nan_to_num(), y, mask=mask)
    guarded([ag.ReconstructionHead(1.0)], strided(norm=True))(x, y, mask=mask)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"loss": "l1"}, RangeError, "loss='l1'"),
        ({"target": "mask"}, RangeError, "target='mask'"),
        ({"corruption": ag.Corruption("zero")}, RangeError, "target='masked'"),
        ({"target": "masked", "corruption": "zero"}, TypeMismatchError, "Corruption"),
    ],
)
def test_a_setting_out_of_its_range_is_refused_by_name(settings, error, words):
    with pytest.raises(error, match=words):
        ag.ReconstructionHead(1.0, **settings)


def test_it_shows_what_it_is():
    head = ag.ReconstructionHead(0.5, loss="bce", target="masked", name="redraw")
    assert repr(head) == "ReconstructionHead(weight=0.5, name='redraw', loss='bce', target='masked')"
