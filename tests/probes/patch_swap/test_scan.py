import copy

import numpy as np
import pytest
import timm
import torch
from torch import nn

from attribguard.errors import AttribGuardError, DataError, ModelError, RangeError, ShapeError, TypeMismatchError
from attribguard.probes.patch_swap import patch_swap_scan
from tests.probes.patch_swap import one_pass_at_a_time
from tests.probes.patch_swap.one_pass_at_a_time import CASES, draw_masks, paper


def images(n, size=8, channels=1):
    return torch.rand(n, channels, size, size)


def scan(network, sources, targets=None, **options):
    return patch_swap_scan(network, sources, targets, **{"passes": 5, "progress": False, **options})


def same(one, other):
    np.testing.assert_allclose(one.certainty, other.certainty, rtol=0, atol=1e-6)
    np.testing.assert_allclose(one.baseline, other.baseline, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_a_scan_equals_one_forward_pass_for_each_pass_position_target_and_source(name):
    case = CASES[name]()
    sources, targets = images(2), images(3)
    found = scan(case.network.train(), sources, targets, patch_size=4, generator=11, batch_size=5)
    masks = draw_masks(11, 5, case.masks)
    certainty, baseline = one_pass_at_a_time.scan(case, sources, targets, found.source_class, masks, 4, 4)
    np.testing.assert_allclose(found.certainty, certainty, rtol=0, atol=1e-6)
    np.testing.assert_allclose(found.baseline, baseline, rtol=0, atol=1e-6)


def test_overlapping_patches_that_do_not_divide_the_image_equal_the_oracle_too():
    case = paper()
    sources, targets = images(1), images(2)
    found = scan(case.network, sources, targets, patch_size=3, stride=2)
    certainty, _ = one_pass_at_a_time.scan(
        case, sources, targets, found.source_class, draw_masks(0, 5, case.masks), 3, 2
    )
    assert found.certainty.shape == (1, 2, 9) and found.grid.left_out == (1, 1)
    np.testing.assert_allclose(found.certainty, certainty, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["paper", "shortcut", "timm_head"])
def test_what_stands_before_the_first_dropout_runs_once_an_image(name):
    network = CASES[name]().network
    first = next(module for module in network.modules() if isinstance(module, nn.Conv2d))
    rows = []
    first.register_forward_hook(lambda module, args, out: rows.append(len(args[0])))
    counts = []
    for passes in (2, 40):
        rows.clear()
        scan(network, images(3), images(4), passes=passes, source_class=None)
        counts.append(sum(rows))
    assert counts[0] == counts[1]
    swapped = 3 * 4 * 4
    assert swapped + 3 <= counts[0] <= swapped + 3 + 30  # the sources, and a few looks


def test_equal_masks_make_a_swap_that_changes_nothing_change_nothing():
    source = images(2)
    for name in ("paper", "shortcut"):
        found = scan(CASES[name]().network, source[:1], torch.cat([source[:1], source[1:]]))
        np.testing.assert_allclose(found.drops[0, 0], 0, atol=1e-6)
        assert abs(found.drops[0, 1]).max() > 1e-4


def test_independent_masks_make_noise_of_a_swap_that_changes_nothing():
    source = images(1)
    found = scan(paper().network, source, source, dropout="independent")
    assert abs(found.drops).min() > 1e-4
    assert found.dropout == "independent"


def test_a_scan_depends_on_its_seed_alone_and_says_it():
    network, sources, targets = paper().network, images(2), images(2)
    generator = torch.Generator().manual_seed(3)
    first, second = (scan(network, sources, targets, generator=generator) for _ in range(2))
    assert abs(first.certainty - second.certainty).max() > 1e-4
    torch.manual_seed(99)
    for found in (first, second):
        np.testing.assert_array_equal(scan(network, sources, targets, generator=found.seed).certainty, found.certainty)
    assert scan(network, sources, targets).seed == 0


@pytest.mark.parametrize("dropout", [None, "independent"])
def test_batches_do_not_matter_where_masks_are_common(dropout):
    network, sources, targets = CASES["shortcut"]().network, images(2), images(3)
    one, other = (scan(network, sources, targets, batch_size=n, dropout=dropout) for n in (1, 64))
    if dropout is None:
        same(one, other)
    else:  # the draws of the second dropout then follow those of a whole batch for the first
        assert abs(one.certainty - other.certainty).max() > 1e-4


def test_one_pass_is_the_plain_certainty_of_any_network():
    for network in (paper().network, nn.Sequential(nn.Flatten(), nn.Linear(64, 3))):
        sources, targets = images(2), images(3)
        found = scan(network, sources, targets, passes=1)
        network.eval()
        label = list(found.source_class)
        with torch.no_grad():
            np.testing.assert_allclose(found.baseline, network(sources).softmax(1)[range(2), label], atol=1e-6)
            swapped = sources.clone()
            swapped[:, :, 4:, :4] = targets[1, :, 4:, :4]
            expected = network(swapped).softmax(1)[range(2), label]
        np.testing.assert_allclose(found.certainty[:, 1, 2], expected, atol=1e-6)


def test_one_pass_switches_off_dropout_that_is_always_on():
    class AlwaysOn(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(64, 3)

        def forward(self, x):
            return self.fc(nn.functional.dropout(x.flatten(1), 0.5))

    network, sources = AlwaysOn(), images(3)
    expected = network.fc(sources.flatten(1)).softmax(1).amax(1)
    np.testing.assert_allclose(scan(network, sources, images(2), passes=1).baseline, expected.detach(), atol=1e-6)


def test_dropout_is_inserted_before_the_classifier_of_a_network_without_any():
    plain = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    own = nn.Sequential(*plain[:3], nn.Dropout(0.4), plain[3])
    sources, targets = images(2), images(3)
    same(scan(plain, sources, targets, dropout=0.4), scan(own, sources, targets))
    with pytest.raises(ModelError, match="without dropout"):  # and nothing of it stays
        scan(plain, sources, targets)


def test_only_dropout_is_active():
    """Neither BatchNorm nor stochastic depth: a network in train mode gives what it gives in eval mode."""
    network = timm.create_model("resnet10t", in_chans=1, num_classes=3, drop_rate=0.2, drop_path_rate=0.5)
    sources, targets = images(2, 16), images(2, 16)
    trained = scan(network.train(), sources, targets, patch_size=8)
    same(trained, scan(network.eval(), sources, targets, patch_size=8))


def test_sources_that_the_network_does_not_give_their_class_are_left_out_and_counted():
    network, sources, targets = paper().network, torch.randn(30, 1, 8, 8), images(2)
    network[5].bias.data.zero_()
    network.eval()
    with torch.no_grad():
        predicted = network(sources).argmax(1)
    label = int(predicted.mode().values)
    right = int((predicted == label).sum())
    assert 0 < right < 30
    found = scan(network, sources, targets, source_class=label)
    assert found.certainty.shape[0] == right and found.left_out == 30 - right
    assert set(found.source_class) == {label}
    same(found, scan(network, sources[predicted == label], targets, source_class=[label] * right))
    of_each = scan(network, sources, targets)
    assert of_each.source_class == tuple(predicted.tolist()) and of_each.left_out == 0


@pytest.mark.parametrize("kind", ["blank", "blur"])
def test_other_modes_need_no_targets(kind):
    case, sources = paper(), images(3)
    found = scan(case.network, sources, mode=kind)
    assert found.certainty.shape == (3, 1, 4) and found.mode == kind
    for s, source in enumerate(sources):
        if kind == "blank":
            donor = torch.zeros_like(source)
        else:  # one eighth of the side is a standard deviation of 1 pixel, cut off at 4
            weights = torch.exp(-0.5 * torch.arange(-4.0, 5.0).square())
            kernel = torch.outer(weights, weights) / weights.sum() ** 2
            padded = nn.functional.pad(source[None], (4, 4, 4, 4), mode="reflect")
            donor = nn.functional.conv2d(padded, kernel[None, None])[0]
        certainty, _ = one_pass_at_a_time.scan(
            case, source[None], donor[None], found.source_class[s : s + 1], draw_masks(0, 5, case.masks), 4, 4
        )
        np.testing.assert_allclose(found.certainty[s], certainty[0], rtol=0, atol=1e-5)


def test_several_patch_sizes_are_scanned_apart():
    network, sources, targets = paper().network, images(2), images(2)
    found = scan(network, sources, targets, patch_size=[4, 2])
    assert [each.grid.patch for each in found] == [4, 2]
    for each in found:
        same(each, scan(network, sources, targets, patch_size=each.grid.patch))


def test_a_model_that_gives_more_than_logits_is_scanned_by_its_output():
    class Pair(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, x):
            return {"features": x, "logits": self.network(x)}

    network, sources, targets = paper().network, images(2), images(2)
    same(scan(Pair(network), sources, targets, output="logits"), scan(network, sources, targets))
    with pytest.raises(ModelError, match="output="):
        scan(Pair(network), sources, targets)


def everything(network):
    state = {name: value.clone() for name, value in network.state_dict().items()}
    modules = list(network.modules())
    return (
        state,
        [module.training for module in modules],
        [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules],
        [(p.grad, p.requires_grad) for p in network.parameters()],
        torch.get_rng_state(),
        sorted(key for module in modules for key in vars(module)),
    )


def assert_same(before, after):
    assert before[0].keys() == after[0].keys()
    assert all(torch.equal(before[0][name], after[0][name]) for name in before[0])
    assert before[1:4] == after[1:4] and torch.equal(before[4], after[4]) and before[5] == after[5]


@pytest.mark.parametrize("options", [{}, {"passes": 1}, {"dropout": "independent"}, {"mode": "blur"}])
@pytest.mark.parametrize("name", CASES)
def test_a_scan_leaves_model_images_and_random_state_as_they_were(name, options):
    network, sources, targets = CASES[name]().network, images(2), images(2)
    for i, module in enumerate(network.modules()):
        module.training = i % 2 == 0
    next(network.parameters()).requires_grad_(False)
    before, given = everything(network), (sources.clone(), targets.clone())
    scan(network, sources, targets, **options)
    assert_same(before, everything(network))
    assert torch.equal(sources, given[0]) and torch.equal(targets, given[1])


def test_a_scan_that_fails_half_way_leaves_the_model_as_it_was():
    class Fails(nn.Module):
        calls = 0

        def forward(self, x):
            Fails.calls += 1
            if Fails.calls > 12:
                raise RuntimeError("enough")
            return x

    network = nn.Sequential(nn.BatchNorm2d(1), Fails(), nn.Flatten(), nn.Linear(64, 3))
    sources, targets = images(2), images(2)
    before = everything(network)
    with pytest.raises(RuntimeError, match="enough"):
        scan(network, sources, targets, dropout=0.5, batch_size=1)
    assert_same(before, everything(network))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
@pytest.mark.parametrize("name", ["paper", "shortcut"])
def test_a_scan_runs_under_any_gradient_mode(name, context):
    network = CASES[name]().network
    with context():
        sources, targets = images(2), images(2)
        found = scan(network, sources, targets)
    same(found, scan(network, sources.clone(), targets.clone()))
    network(images(2)).sum().backward()  # the network can still be trained


def test_a_generator_is_drawn_from_once_and_only_after_everything_was_checked():
    generator = torch.Generator().manual_seed(0)
    state = generator.get_state()
    with pytest.raises(AttribGuardError):
        scan(paper().network, images(2), images(2), source_class=7, generator=generator)
    assert torch.equal(generator.get_state(), state)


def network_and(**options):
    return {"network": paper().network, "sources": images(3), "targets": images(2), **options}


BAD = {
    "patch larger than the image": (network_and(patch_size=9), RangeError, "patch_size=9 for images of 8 x 8"),
    "stride larger than the patch": (network_and(patch_size=2, stride=3), RangeError, "stride=3"),
    "no patch size": (network_and(patch_size=[]), RangeError, "at least one size"),
    "patch size in words": (network_and(patch_size="4"), TypeMismatchError, "patch_size='4'"),
    "broken patch size": (network_and(patch_size=[4, 2.5]), TypeMismatchError, "patch_size=2.5"),
    "no passes": (network_and(passes=0), RangeError, "passes=0"),
    "unknown reduce": (network_and(reduce="max"), RangeError, "reduce='max'"),
    "unknown mode": (network_and(mode="noise"), RangeError, "mode='noise'"),
    "dropout of 1": (network_and(dropout=1.0), RangeError, "dropout=1.0"),
    "unknown dropout": (network_and(dropout="common"), TypeMismatchError, "dropout='common'"),
    "dropout beside its own": (network_and(dropout=0.5), RangeError, "that has dropout"),
    "dropout without passes": (network_and(dropout="independent", passes=1), RangeError, "passes=1"),
    "no batch": (network_and(batch_size=0), RangeError, "batch_size=0"),
    "no targets": (network_and(targets=None), TypeMismatchError, "no targets"),
    "integer images": (network_and(sources=images(2).byte()), TypeMismatchError, "sources of torch.uint8"),
    "a list of images": (network_and(targets=[images(1)]), TypeMismatchError, "targets of list"),
    "one image": (network_and(sources=images(2)[0]), ShapeError, r"sources of shape \(1, 8, 8\)"),
    "targets of another size": (network_and(targets=images(2, 9)), ShapeError, r"\(N, 1, 8, 8\), as the sources"),
    "no sources": (network_and(sources=images(0)), DataError, "no sources"),
    "nan": (network_and(targets=images(2) * float("nan")), DataError, "targets with values that are not finite"),
    "class out of range": (network_and(source_class=3), RangeError, "0 to 2"),
    "negative class": (network_and(source_class=[0, -1, 0]), RangeError, "from -1 to 0"),
    "a class too many": (network_and(source_class=[0, 1]), ShapeError, r"one, or \(3,\)"),
    "a broken class": (network_and(source_class=0.5), TypeMismatchError, "source_class=0.5"),
    "a class in words": (network_and(source_class="cat"), TypeMismatchError, "source_class='cat'"),
    "a seed in words": (network_and(generator="0"), TypeMismatchError, "generator='0'"),
    "a negative seed": (network_and(generator=-1), RangeError, "generator=-1"),
    "no module": (network_and(network=lambda x: x), TypeMismatchError, "a model of function"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_error(name):
    options, kind, words = BAD[name]
    network, sources, targets = (options[key] for key in ("network", "sources", "targets"))
    rest = {key: value for key, value in options.items() if key not in ("network", "sources", "targets")}
    with pytest.raises(kind, match=words):
        scan(network, sources, targets, **rest)


def test_no_source_classified_as_its_class_is_one_clear_error():
    network = paper().network
    network[5].bias.data = torch.tensor([100.0, 0.0, 0.0])
    with pytest.raises(DataError, match="3 sources, none of which the network classifies as its class"):
        scan(network, images(3), images(2), source_class=1)


def test_a_compiled_or_scripted_model_is_one_clear_error():
    network = paper().network
    with pytest.raises(ModelError, match="compiled model"):
        scan(torch.compile(network), images(2), images(2))
    in_place = copy.deepcopy(network)
    in_place.compile()
    with pytest.raises(ModelError, match="compiled model"):
        scan(in_place, images(2), images(2))
    forward_alone = copy.deepcopy(network)
    forward_alone.forward = torch.compile(forward_alone.forward)
    with pytest.raises(ModelError, match="compiled model"):
        scan(forward_alone, images(2), images(2))
    with pytest.raises(ModelError, match="scripted model"):
        scan(torch.jit.trace(network.eval(), images(2)), images(2), images(2))


def test_one_pass_is_open_to_a_network_that_drops_attention():
    network = nn.Sequential(
        nn.Flatten(1, 2), nn.TransformerEncoderLayer(8, 2, batch_first=True), nn.Flatten(), nn.Linear(64, 3)
    )
    with pytest.raises(ModelError, match=r"drops attention inside.*passes=1"):
        scan(network, images(2), images(2))
    sources = images(2)
    with torch.no_grad():
        expected = network.eval()(sources).softmax(1).amax(1)
    np.testing.assert_allclose(scan(network, sources, images(2), passes=1).baseline, expected, atol=1e-6)
