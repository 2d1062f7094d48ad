"""Networks that break the assumptions a guard would like to make, each run or refused by name."""

import copy
import gc

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import spectral_norm
from torch.utils.checkpoint import checkpoint

import attribguard as ag
from attribguard.capture import is_hooked
from tests.networks import batch, plain_cnn

PARTLY = torch.tensor([True, False, True, False])


def zero_term(model, **kwargs):
    """The penalty under a mask of ones, which must be exactly 0."""
    x, y, mask = batch(**kwargs)
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)])
    return guard(x, y, mask=torch.ones_like(mask)).terms["actdiff"]


def test_coupling_is_judged_for_the_layers_that_are_read():
    """One penalty reads before the BatchNorm, the other behind it; their order must not matter."""
    x, y, mask = batch()
    terms = []
    for order in (slice(None), slice(None, None, -1)):
        torch.manual_seed(0)
        early = ag.ActDiff(1.0, layers="0", corruption="mean", name="early")
        late = ag.ActDiff(1.0, corruption="zero", name="late")
        guard = ag.wrap(plain_cnn(norm=True), penalties=[early, late][order], example_input=(1, 12, 12))
        terms.append(guard(x, y, mask=mask, annotated=PARTLY).terms)
        assert guard.model[1].num_batches_tracked == 1
    torch.testing.assert_close(terms[0]["late"], terms[1]["late"])


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


def test_coupling_behind_one_penaltys_layers_is_not_overlooked_for_another():
    model = plain_cnn()
    model.insert(2, Centred())
    seen = []
    model[0].register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    early = ag.ActDiff(1.0, layers="0", corruption="mean", name="early")
    late = ag.ActDiff(1.0, corruption="zero", name="late")
    guard = ag.wrap(model, penalties=[early, late], example_input=(1, 12, 12))
    x, y, mask = batch()
    guard(x, y, mask=mask, annotated=PARTLY)
    seen.clear()
    guard(x, y, mask=mask, annotated=PARTLY)
    assert seen == [4, 2, 4]


class Neighbour(nn.Module):
    """Each image takes from the one before it."""

    def forward(self, x):
        return x + torch.cat([torch.zeros_like(x[:1]), x[:-1]])


@pytest.mark.parametrize("kind", ["one direction", "a scale of zero"])
def test_hidden_coupling_runs_all_rows(kind):
    model = plain_cnn(norm=kind == "a scale of zero")
    if kind == "one direction":
        model.insert(1, Neighbour())
    else:
        nn.init.zeros_(model[1].weight)
    seen = []
    model[0].register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    x, y, mask = batch()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=(1, 12, 12))
    guard(x, y, mask=mask, annotated=PARTLY)
    seen.clear()
    guard(x, y, mask=mask, annotated=PARTLY)
    assert seen == [4, 4]


def test_a_penalty_that_changes_is_planned_anew():
    x, y, mask = batch()
    guard = ag.wrap(plain_cnn(), penalties=[ag.ActDiff(1.0, corruption="zero")])
    assert guard(x, y, mask=mask).terms["actdiff"] > 0
    guard.penalties[0].corruption = ag.Corruption("zero", dilate=20)
    assert guard(x, y, mask=mask).terms["actdiff"] == 0
    guard.penalties.append(ag.ActDiff(1.0, name="more"))
    assert guard(x, y, mask=mask).terms["more"] > 0


class WritesIntoItsInput(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = plain_cnn()

    def forward(self, x):
        return self.net(x.sub_(0.5))


def test_a_model_that_writes_into_its_images_is_refused_and_they_stay():
    x, y, mask = batch()
    before = x.clone()
    with pytest.raises(ag.errors.ModelError, match="writes into the images"):
        ag.wrap(WritesIntoItsInput(), penalties=[ag.ActDiff(1.0)])(x, y, mask=mask)
    assert torch.equal(x, before)


def test_a_corruption_that_works_in_place_leaves_the_images():
    def noise(x, mask):
        x[(mask < 0.5).expand_as(x)] = 0
        return x

    x, y, mask = batch()
    before = x.clone()
    model = plain_cnn()
    out = ag.wrap(model, penalties=[ag.ActDiff(1.0, corruption=noise)])(x, y, mask=mask)
    out.loss.backward()
    assert torch.equal(x, before)
    guard = ag.wrap(copy.deepcopy(plain_cnn()), penalties=[ag.ActDiff(1.0, corruption=lambda x, mask: x.double())])
    with pytest.raises(ag.errors.ShapeError, match="float64"):
        guard(x, y, mask=mask)


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        self.net, self.reentrant = plain_cnn(), reentrant

    def forward(self, x):
        return self.net[4:](checkpoint(self.net[:4], x.requires_grad_(), use_reentrant=self.reentrant))


def test_reentrant_checkpointing_which_carries_no_gradient_is_refused():
    x, y, mask = batch()
    with pytest.raises(ag.errors.LayerError, match="use_reentrant=False"):
        ag.wrap(Checkpointed(True), penalties=[ag.ActDiff(1.0)])(x, y, mask=mask)
    assert ag.wrap(Checkpointed(False), penalties=[ag.ActDiff(1.0)])(x, y, mask=mask).terms["actdiff"] > 0


class PositionBias(nn.Module):
    """An activation on a table that knows nothing of the images, as in Swin V2."""

    def __init__(self):
        super().__init__()
        self.net = plain_cnn()
        self.bias = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))

    def forward(self, x):
        table = self.bias(torch.ones(1, 7, 2))
        return self.net(x) + table.mean()


def test_activations_that_see_no_image_are_not_compared():
    guard = ag.wrap(PositionBias(), penalties=[ag.ActDiff(1.0)], example_input=(1, 12, 12))
    assert guard.layers["actdiff"] == ("net.1:input", "net.3:input")


class Windows(nn.Module):
    """Four windows an image, one after the other along the first axis."""

    def __init__(self):
        super().__init__()
        self.inner, self.fc = nn.Sequential(nn.Linear(36, 8), nn.ReLU()), nn.Linear(32, 2)

    def forward(self, x):
        windows = x.unfold(2, 6, 6).unfold(3, 6, 6).reshape(-1, 36)
        return self.fc(self.inner(windows).view(len(x), -1))


def test_windows_of_an_image_count_as_that_image():
    model = Windows()
    x, y, mask = batch()
    out = ag.wrap(model, penalties=[ag.ActDiff(1.0, corruption="zero")])(x, y, mask=mask, annotated=PARTLY)
    cut = x.unfold(2, 6, 6).unfold(3, 6, 6).reshape(-1, 36), (x * mask).unfold(2, 6, 6).unfold(3, 6, 6).reshape(-1, 36)
    difference = (model.inner[0](cut[0]) - model.inner[0](cut[1])).view(4, -1)
    expected = (difference.square().mean(1).sqrt() * PARTLY).sum() / 4
    torch.testing.assert_close(out.terms["actdiff"], expected.detach())


@pytest.mark.parametrize("gradient", [False, True])
def test_everything_may_be_made_under_inference_mode(gradient):
    penalties = [ag.ActDiff(1.0, corruption="zero")] + ([ag.GradMask(1.0)] if gradient else [])
    guard = ag.wrap(plain_cnn(), penalties=penalties)
    with torch.inference_mode():
        x, y, mask = batch()
        out = guard(x, y, mask=mask, annotated=PARTLY.clone())
    assert out.terms["actdiff"] > 0
    assert not out.loss.requires_grad


class TrainsWithAuxiliary(nn.Module):
    def __init__(self):
        super().__init__()
        self.net, self.aux = plain_cnn(outputs=3), plain_cnn(outputs=3)

    def forward(self, x):
        return (self.net(x), self.aux(x)) if self.training else self.net(x)


def test_a_tuple_in_train_mode_and_a_tensor_in_eval_mode():
    x, y, mask = batch(classes=3)
    model = TrainsWithAuxiliary()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0, layers="net.*")], output=0)
    assert guard(x, y, mask=mask).logits.shape == (4, 3)
    model.eval()
    assert torch.equal(guard(x, y, mask=mask).logits, model(x))


def test_wrapping_twice_is_refused_at_once_and_allowed_when_the_guard_is_gone():
    model = plain_cnn()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)])
    with pytest.raises(ag.errors.ModelError, match="wrapped already"):
        ag.wrap(model)
    del guard
    gc.collect()
    assert not is_hooked(model)
    ag.wrap(model)


def test_a_state_in_buffers_is_the_same_at_the_start_of_both_passes():
    assert zero_term(nn.Sequential(spectral_norm(nn.Conv2d(1, 4, 3)), plain_cnn(channels=4))) == 0


class DropsBeforeAFunction(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.drop, self.fc = nn.Conv2d(1, 4, 3), nn.Dropout2d(0.5), nn.Linear(4, 2)

    def forward(self, x):
        return self.fc(F.relu(self.drop(self.conv(x))).mean((2, 3)))


def test_dropout_before_a_functional_activation_is_part_of_what_enters_it():
    guard = ag.wrap(DropsBeforeAFunction(), penalties=[ag.ActDiff(1.0)], example_input=(1, 12, 12))
    assert guard.layers["actdiff"] == ("drop",)


def test_penalties_compute_outside_autocast_and_further_passes_inside():
    seen = {}

    class Look(ag.Penalty):
        def forward(self, trace):
            x = trace.batch.x.flatten(1)
            seen["product"] = (x @ x.T).dtype
            seen["again"] = trace.forward(trace.batch.x).dtype
            return trace.logits.float().sum(1)

    guard = ag.wrap(plain_cnn(), penalties=[Look(1.0)])
    x, y, mask = batch()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        guard(x, y, mask=mask)
    assert seen == {"product": torch.float32, "again": torch.bfloat16}


def test_masks_of_antialiased_interpolation_are_accepted():
    x, y, _ = batch()
    mask = F.interpolate(torch.ones(4, 1, 7, 7), (12, 12), mode="bilinear", antialias=True) * (1 + 2e-7)
    assert mask.max() > 1
    assert ag.wrap(plain_cnn(), penalties=[ag.ActDiff(1.0)])(x, y, mask=mask).terms["actdiff"] == 0


def test_a_wrong_target_in_the_first_call_installs_nothing():
    model = plain_cnn()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)])
    hooks = sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())
    x, y, mask = batch()
    with pytest.raises(ag.errors.RangeError, match="targets from"):
        guard(x, y + 5, mask=mask)
    assert sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()) == hooks


def test_a_lazy_model_is_refused_by_name():
    with pytest.raises(ag.errors.ModelError, match="lazy"):
        ag.wrap(nn.Sequential(nn.LazyConv2d(4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)))
