"""The guard on every network that users have: forward, backward, and the same numbers as by hand."""

import pytest
import torch
import torchvision
from torch import nn

import attribguard as ag
from tests.networks import NETWORKS, FunctionalNet, PairOutput, batch, plain_cnn


@pytest.fixture(params=NETWORKS)
def network(request):
    torch.manual_seed(0)
    return NETWORKS[request.param]()


def images(shape, n=2):
    x = torch.rand(n, *shape)
    mask = torch.zeros(n, *shape[1:])
    mask[:, shape[1] // 4 : shape[1] // 2, shape[2] // 4 : shape[2] // 2] = 1
    return x, torch.arange(n) % 2, mask


def test_every_parameter_gets_a_finite_gradient(network):
    model, shape = network
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=shape)
    x, y, mask = images(shape)
    out = guard(x, y, mask=mask)
    out.loss.backward()
    assert out.terms["actdiff"] > 0
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []


def test_the_penalty_alone_reaches_the_first_layer(network):
    model, shape = network
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], criterion_weight=0.0, example_input=shape)
    x, y, mask = images(shape)
    guard(x, y, mask=mask).loss.backward()
    assert next(model.parameters()).grad.abs().sum() > 0


def test_features_come_as_maps_over_the_image(network):
    model, shape = network
    seen = {}

    class Look(ag.Penalty):
        def forward(self, trace):
            seen.update(trace.features)
            return trace.logits.sum(1)

    guard = ag.wrap(model, penalties=[Look(1.0, layers="auto")], example_input=shape)
    x, y, mask = images(shape)
    guard(x, y, mask=mask)
    for features in seen.values():
        n, channels, height, width = features.shape
        # one reading of the axes only: the grid has the image's proportions and is coarser than the image
        assert n == 2 and channels >= 1
        assert abs(height * shape[2] - width * shape[1]) <= max(shape[1:])
        assert height <= shape[1] and width <= shape[2]


def test_guard_without_target_is_the_model(network):
    model, shape = network
    guard = ag.wrap(model.eval(), penalties=[ag.ActDiff(1.0)], example_input=shape)
    x, _, _ = images(shape)
    assert torch.equal(guard(x), model(x))


def by_hand(model, x, y, mask, weight):
    """ActDiff with hooks of its own and a fixed corruption, on a model whose activations are not in place."""
    taken = []
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    handles = [module.register_forward_pre_hook(lambda m, args: taken.append(args[0])) for module in relus]
    logits = model(x)
    clean = taken.copy()
    taken.clear()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    torch.func.functional_call(model, buffers, (x * mask,))
    for handle in handles:
        handle.remove()
    distances = [(a - b).square().flatten(1).mean(1).sqrt() for a, b in zip(clean, taken, strict=True)]
    return nn.functional.cross_entropy(logits, y) + weight * torch.stack(distances).mean(0).mean()


@pytest.mark.parametrize("inplace", [False, True])
def test_guard_equals_two_passes_by_hand(inplace):
    """Loss, every gradient and every buffer; ResNet-18 uses each ReLU module twice."""
    twin, model = (torchvision.models.resnet18(num_classes=2).double() for _ in range(2))
    model.load_state_dict(twin.state_dict())
    for network, flag in ((twin, False), (model, inplace)):
        for module in network.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = flag
    x, y, mask = (t.double() if t.is_floating_point() else t for t in images((3, 64, 64), n=4))
    expected = by_hand(twin, x, y, mask[:, None], 3.0)
    expected.backward()
    guard = ag.wrap(model, penalties=[ag.ActDiff(3.0, corruption="zero")])
    out = guard(x, y, mask=mask)
    out.loss.backward()
    torch.testing.assert_close(out.loss, expected, rtol=1e-12, atol=1e-12)
    for (name, ours), theirs in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-9, atol=1e-9, msg=name)
    for (name, ours), theirs in zip(model.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_a_module_that_runs_twice_has_its_calls_apart():
    model = torchvision.models.resnet18(num_classes=2)
    guard = ag.wrap(model, penalties=[Recorder("layer1.0.relu*")])
    x, y, _ = images((3, 32, 32))
    guard(x, y)
    features = guard.penalties[0].seen
    assert list(features) == ["layer1.0.relu", "layer1.0.relu#1"]
    assert not torch.equal(*features.values())


class Recorder(ag.Penalty):
    """Keeps what it sees; tests only."""

    def __init__(self, *layers):
        super().__init__(0.0, layers=layers)

    def forward(self, trace):
        self.seen = {name: x.detach() for name, x in trace.features.items()}
        return trace.logits.sum(1)


def test_functional_activations_are_found_at_the_modules_before_them():
    guard = ag.wrap(FunctionalNet(), penalties=[ag.ActDiff(1.0)], example_input=(3, 24, 24))
    assert guard.layers == {"actdiff": ("norm1", "conv2")}


def test_functional_activation_of_a_sum_is_refused_by_name():
    class Sum(FunctionalNet):
        def forward(self, x):
            x = self.conv1(x)
            return self.fc(self.conv2(torch.relu(x + 1)).mean((2, 3)))

    with pytest.raises(ag.errors.LayerError, match="relu in 'the model itself'"):
        ag.wrap(Sum(), penalties=[ag.ActDiff(1.0)], example_input=(3, 24, 24))


def test_activation_after_an_in_place_change_is_not_taken_for_the_module_before_it():
    class Shifted(FunctionalNet):
        def forward(self, x):
            x = self.conv1(x)
            x += 1
            return self.fc(self.conv2(torch.relu(x)).mean((2, 3)))

    with pytest.raises(ag.errors.LayerError, match="relu in 'the model itself'"):
        ag.wrap(Shifted(), penalties=[ag.ActDiff(1.0)], example_input=(3, 24, 24))


@pytest.mark.parametrize("last", [nn.Tanh(), nn.Softplus(), nn.ReLU(inplace=True)])
def test_the_classifiers_own_output_is_never_compared(last):
    model = nn.Sequential(plain_cnn(), last)
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=(1, 12, 12))
    assert guard.layers == {"actdiff": ("0.1:input", "0.3:input")}


@pytest.mark.parametrize("layers", ["auto", "conv*", ("fc", "conv1")])
def test_layers_keep_the_order_of_the_pass(layers):
    guard = ag.wrap(FunctionalNet(), penalties=[ag.ActDiff(1.0, layers=layers)], example_input=(3, 24, 24))
    expected = {"auto": ("norm1", "conv2"), "conv*": ("conv1", "conv2"), ("fc", "conv1"): ("conv1", "fc")}
    assert guard.layers["actdiff"] == expected[layers]


def test_one_output_and_one_channel():
    model = plain_cnn(outputs=1)
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)])
    x, y, mask = batch()
    for target in (y, y[:, None].float()):
        out = guard(x, target, mask=mask)
        expected = nn.functional.binary_cross_entropy_with_logits(model(x).flatten(), y.float())
        torch.testing.assert_close(out.terms["criterion"], expected)


def test_multi_label_takes_an_explicit_criterion():
    model = plain_cnn(outputs=5)
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], criterion=nn.BCEWithLogitsLoss())
    x, _, mask = batch()
    target = torch.rand(4, 5).round()
    out = guard(x, target, mask=mask)
    out.loss.backward()
    torch.testing.assert_close(out.terms["criterion"], nn.functional.binary_cross_entropy_with_logits(model(x), target))
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("output", [1, lambda pair: pair[1]])
def test_output_picks_the_logits(output):
    model = PairOutput()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], output=output)
    x, y, mask = batch(channels=3)
    assert torch.equal(guard(x, y, mask=mask).logits, model(x)[1])
