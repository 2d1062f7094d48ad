"""A guard with every penalty and head goes through what modules go through: loss, terms and gradients stay the same."""

import copy
import io
import pickle

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils.checkpoint import checkpoint
from torchvision.ops import FrozenBatchNorm2d

import attribguard as ag
from tests.contracts.every_term import TERMS, guarded
from tests.heads.small import SHAPE, annotated_batch, strided
from tests.networks import plain_cnn

pytestmark = pytest.mark.filterwarnings("ignore:.*is blind")


def everything(model=None, *, channels=1, norm=True, seed=0):
    """A guard with all of them, the same for the same seed."""
    torch.manual_seed(seed)
    model = strided(channels, norm=norm) if model is None else model
    return guarded(TERMS, model, example_input=(channels, *SHAPE[1:]))


def step(call, parameters, inputs):
    """Loss, terms and gradients by name, from one random state."""
    torch.manual_seed(5)
    for p in parameters.values():
        p.grad = None
    x, y, mask, segmentation = inputs
    out = call(x, y, mask=mask, segmentation=segmentation)
    out.loss.backward()
    found = {"loss": out.loss.detach()} | {f"term {name}": term for name, term in out.terms.items()}
    return found | {name: p.grad.clone() for name, p in parameters.items() if p.grad is not None}


def step_of(guard, inputs):
    return step(guard, dict(guard.named_parameters()), inputs)


def assert_same(ours, theirs, **tolerance):
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, msg=lambda text, name=name: f"{name}: {text}", **tolerance)


EXACT = {"rtol": 0, "atol": 0}


def test_all_of_them_take_part():
    found = step_of(everything(), annotated_batch(8))
    assert all(found[f"term {name}"] > 0 for name in TERMS)
    assert all(found[name].abs().sum() > 0 for name in found if name.endswith("weight"))


def saved_whole(guard):
    file = io.BytesIO()
    torch.save(guard, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def filled_from_state_dict(guard):
    other = everything(seed=1)
    file = io.BytesIO()
    torch.save(guard.state_dict(), file)
    file.seek(0)
    assert not other.load_state_dict(torch.load(file, weights_only=True))[0]
    return other


def moved_away_and_back(guard):
    state = copy.deepcopy(guard.state_dict())
    guard = guard.to("meta").to_empty(device="cpu")
    guard.load_state_dict(state)
    return guard


def averaged(guard):
    average = AveragedModel(guard)
    average.update_parameters(guard)
    return average.module


def timm_average(guard):
    average = ModelEmaV3(guard, decay=0.5)
    average.update(guard)
    return average.module.train()


COPIES = [copy.deepcopy, lambda guard: pickle.loads(pickle.dumps(guard)), saved_whole, filled_from_state_dict,
          moved_away_and_back, averaged, timm_average]  # fmt: skip


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "after a step"])
@pytest.mark.parametrize("copied", COPIES, ids=lambda each: each.__name__)
def test_what_is_copied_saved_averaged_or_moved_steps_as_the_guard(copied, used):
    guard, twin, inputs = everything(), everything(), annotated_batch(8)
    if used:
        step_of(guard, annotated_batch(4))
        twin.load_state_dict(guard.state_dict())
    made = copied(guard)
    assert_same(step_of(made, inputs), step_of(twin, inputs), **EXACT)
    # The copy's own step moved the copy's buffers alone.
    if made is not guard and copied is not moved_away_and_back:
        before = {name: buffer.clone() for name, buffer in guard.named_buffers()}
        step_of(made, inputs)
        assert all(torch.equal(buffer, before[name]) for name, buffer in guard.named_buffers())


@pytest.mark.parametrize("average", [AveragedModel, lambda guard: ModelEmaV3(guard, decay=0.75)], ids=["torch", "timm"])
def test_an_average_follows_the_training_and_predicts_with_the_mean(average):
    guard, inputs = everything(norm=False), annotated_batch(8)
    ema = average(guard)
    optimizer = torch.optim.SGD(guard.parameters(), lr=1e-3)
    seen = []
    for _ in range(2):
        step_of(guard, inputs)
        optimizer.step()
        (ema.update_parameters if isinstance(ema, AveragedModel) else ema.update)(guard)
        seen.append(guard.model[0].weight.detach().clone())
    start = everything(norm=False).model[0].weight
    mean = sum(seen) / 2 if isinstance(ema, AveragedModel) else 0.75 * (0.75 * start + 0.25 * seen[0]) + 0.25 * seen[1]
    torch.testing.assert_close(ema.module.model[0].weight, mean.detach())
    torch.testing.assert_close(ema(inputs[0]), ema.module.model(inputs[0]))


def test_functional_call_uses_the_parameters_and_buffers_that_it_is_given():
    guard, twin, inputs = everything(), everything(), annotated_batch(8)
    parameters = {name: p.detach().clone().requires_grad_() for name, p in everything().named_parameters()}
    buffers = {name: buffer.clone() for name, buffer in guard.named_buffers()}
    own = copy.deepcopy(guard.state_dict())
    with torch.no_grad():
        for p in guard.parameters():
            p.zero_()

    def call(x, y, **annotations):
        return torch.func.functional_call(guard, parameters | buffers, (x, y), annotations)

    assert_same(step(call, parameters, inputs), step_of(twin, inputs), **EXACT)
    for name, buffer in guard.named_buffers():
        assert torch.equal(buffer, own[name]), name
        assert torch.equal(buffers[name], twin.get_buffer(name)), name


def test_functional_call_goes_with_gradnorm():
    guard = ag.wrap(strided(), penalties=[ag.ActDiff(1.0), ag.GradCAMRRR(1.0)], weighting=ag.GradNorm())
    x, y, mask, _ = annotated_batch()
    guard(x, y, mask=mask)
    parameters = {name: p.detach().clone().requires_grad_() for name, p in guard.named_parameters()}
    out = torch.func.functional_call(guard, parameters, (x, y), {"mask": mask})
    out.loss.backward()
    assert parameters["weighting.factor_actdiff"].grad.abs() > 0


@pytest.mark.parametrize("kind", ["weight_norm", "spectral_norm"])
def test_a_classifier_whose_weight_is_computed_gets_the_gradient_by_autograd(kind):
    x, y, mask, _ = annotated_batch(8)
    model = strided().double()
    model[-1] = getattr(nn.utils.parametrizations, kind)(model[-1])
    model.eval()  # in which spectral_norm holds still
    features = model[:6](x.double())
    weight = model[-1].weight
    heat = (weight[y][:, :, None, None] / 9 * features).sum(1)
    small = ag.masks.resize(mask, (3, 3)).double()[:, 0]
    expected = ((1 - small) * heat).square().sum((1, 2)).mean()
    guard = ag.wrap(model, penalties=[ag.GradCAMRRR(1.0, relu=False, normalize="none")])
    out = guard(x.double(), y, mask=mask)
    out.loss.backward()
    torch.testing.assert_close(out.terms["gradcamrrr"], expected.detach())
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
def test_a_guard_cast_after_wrap_is_the_guard_of_the_cast_model(dtype):
    cast, made = everything(norm=False).to(dtype), everything(strided().to(dtype), norm=False)
    made.load_state_dict(cast.state_dict())
    inputs = annotated_batch(8, dtype=dtype)
    assert_same(step_of(cast, inputs), step_of(made, inputs), **EXACT)


def test_frozen_parts_get_no_gradient_and_change_no_other():
    guard, twin, inputs = everything(), everything(), annotated_batch(8)
    frozen = ["model.0.weight", "model.0.bias", "model.1.weight", "model.1.bias", "model.8.bias"]
    for name in frozen:
        guard.get_parameter(name).requires_grad_(False)
    theirs = step_of(twin, inputs)
    assert all(name in theirs for name in frozen)
    theirs = {name: value for name, value in theirs.items() if name not in frozen}
    assert_same(step_of(guard, inputs), theirs, rtol=1e-5, atol=1e-6)


def test_channels_last_changes_no_number():
    guard, twin = everything(channels=3, norm=False), everything(channels=3, norm=False)
    x, *annotations = annotated_batch(8, channels=3)
    ours = step_of(guard.to(memory_format=torch.channels_last), (x.to(memory_format=torch.channels_last), *annotations))
    assert_same(ours, step_of(twin, (x, *annotations)), rtol=1e-4, atol=1e-5)


def test_a_step_does_not_depend_on_the_image_sizes_seen_before():
    guard = everything()
    for size in (12, 19, 33, 12):
        twin, inputs = everything(), annotated_batch(4, size=size)
        twin.load_state_dict(guard.state_dict())
        assert_same(step_of(guard, inputs), step_of(twin, inputs), **EXACT)


def test_training_in_eval_mode_is_training_with_frozen_batchnorm():
    guard, inputs = everything(), annotated_batch(8)
    step_of(guard, annotated_batch(4))  # statistics of its own
    model = copy.deepcopy(guard.unwrap())
    for i in (1, 4):
        frozen = FrozenBatchNorm2d(model[i].num_features)
        frozen.load_state_dict(model[i].state_dict())
        model[i] = frozen
    twin, guard = everything(model, seed=2), everything(guard.model, seed=2)
    guard.eval()
    before = {name: buffer.clone() for name, buffer in guard.named_buffers()}
    ours, theirs = step_of(guard, inputs), step_of(twin, inputs)
    ours = {name: value for name, value in ours.items() if name in theirs}  # FrozenBatchNorm2d has no parameters
    assert_same(ours, theirs, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(buffer, before[name]) for name, buffer in guard.named_buffers())


class Checkpointed(nn.Module):
    def __init__(self, net, enabled):
        super().__init__()
        self.net, self.enabled = net, enabled

    def forward(self, x):
        x = checkpoint(self.net[:4], x, use_reentrant=False) if self.enabled else self.net[:4](x)
        return self.net[4:](x)


def test_activation_checkpointing_in_model_and_decoders_changes_no_number():
    guards = []
    for enabled in (True, False):
        torch.manual_seed(0)
        guards.append(everything(Checkpointed(plain_cnn(dropout=0.2), enabled), seed=1))
    guards[0].load_state_dict(guards[1].state_dict())
    guards[0].set_grad_checkpointing()
    assert all(head.decoder.checkpointing for head in guards[0].heads.values())
    inputs = annotated_batch(8)
    assert_same(*(step_of(guard, inputs) for guard in guards), rtol=1e-5, atol=1e-6)
