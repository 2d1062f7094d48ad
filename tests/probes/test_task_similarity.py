"""The probe on guards: its numbers against slow ones, that it leaves no trace, and what it refuses."""

import copy
import itertools
import warnings

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import attribguard as ag
from attribguard.errors import (
    DataError,
    LayerError,
    ModelError,
    RangeError,
    ShapeError,
    TypeMismatchError,
)
from tests.networks import NETWORKS, plain_cnn
from tests.oracles import as_array
from tests.probes.similarity_oracles import cka_by_gram_matrices, cosine, rows_by_loops

SIZE = 12
similarity = ag.probes.task_similarity


class Energy(ag.Penalty):
    """Mean squared features of one layer."""

    def forward(self, trace):
        return trace.features[self.layers[0]].square().flatten(1).mean(1)


class Level(ag.Head):
    """Raises what it draws, or lowers it."""

    def __init__(self, sign, decoder, name):
        super().__init__(1.0, decoder=decoder, layers="3", name=name)
        self.sign = sign

    def out_channels(self, image_channels):
        return 1

    def loss(self, prediction, batch, corrupted):
        return self.sign * prediction.flatten(1).mean(1)


def batches(n=3, size=4, last=4, side=SIZE, masked=True):
    """Images, targets and masks; the last batch may be smaller."""
    found = []
    for rows in [*[size] * (n - 1), last]:
        mask = (torch.rand(rows, side, side) > 0.5).float()
        found.append((torch.randn(rows, 1, side, side), torch.randint(2, (rows,)), *([mask] if masked else [])))
    return found


def multitask(seed=0, *, weight=0.4, norm=False, dropout=0.0, **options):
    torch.manual_seed(seed)
    return ag.wrap(
        plain_cnn(norm=norm, dropout=dropout),
        heads=[ag.ReconstructionHead(weight), ag.SegmentationHead(2, weight)],
        penalties=[Energy(weight, layers="0")],
        example_input=(1, SIZE, SIZE),
        **options,
    )


def classifier(seed=0, **options):
    torch.manual_seed(seed)
    return ag.wrap(plain_cnn(**options))


def maps(model, x, stop):
    with torch.no_grad():
        return as_array(model[:stop](x))


# The cosines


def hand_written(model, decode, x, y, mask):
    """Three terms, each from a pass of its own, and the names of the parameters that they reach."""
    yield F.cross_entropy(model(x), y), {"0.weight", "0.bias", "2.weight", "2.bias", "6.weight", "6.bias"}
    drawn = F.interpolate(decode([model[:4](x)]), size=x.shape[-2:], mode="bilinear", align_corners=False)
    yield (drawn - x).square().mean(), {"0.weight", "0.bias", "2.weight", "2.bias"}
    annotated = model[0](x).square().flatten(1).mean(1)
    yield annotated.mean(), {"0.weight", "0.bias"}


def test_cosines_are_those_of_terms_written_by_hand():
    model = plain_cnn()
    head = ag.ReconstructionHead(0.4, layers="3")
    guard = ag.wrap(model, heads=[head], penalties=[Energy(0.1, layers="0")], example_input=(1, SIZE, SIZE))
    data = batches(3, last=2)
    values = []
    for x, y, mask in data:
        gradients, reached = [], []
        for term, names in hand_written(model, head.decoder, x, y, mask):
            given = [(n, p) for n, p in model.named_parameters() if n in names]
            parts = torch.autograd.grad(term, [p for _, p in given])
            gradients.append({n: as_array(g) for (n, _), g in zip(given, parts, strict=True)})
            reached.append(names)
        value = np.ones((3, 3))
        for i, j in itertools.permutations(range(3), 2):
            both = sorted(reached[i] & reached[j])
            value[i, j] = cosine([gradients[i][n] for n in both], [gradients[j][n] for n in both])
        values.append(value)
    found = similarity(guard, data, evaluating=False).gradients["guard"]
    assert found.terms == ("criterion", "reconstruction", "energy")
    np.testing.assert_allclose(found.mean, np.mean(values, 0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.error, np.std(values, 0, ddof=1) / np.sqrt(3), rtol=1e-4, atol=1e-6)
    assert not found.skipped.any()


def test_equal_tasks_pull_together_and_opposed_ones_apart():
    decoder = nn.Sequential(nn.Conv2d(8, 1, 1))
    decoders = [_First(copy.deepcopy(decoder)) for _ in range(3)]
    heads = [Level(sign, d, name) for sign, d, name in zip((1, 1, -1), decoders, ("up", "too", "down"), strict=True)]
    guard = ag.wrap(plain_cnn(), heads=heads, criterion="none", example_input=(1, SIZE, SIZE))
    found = similarity(guard, [(x, None) for x, _ in batches(masked=False)]).gradients["guard"]
    np.testing.assert_allclose(found.mean, [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], rtol=1e-6)


class _First(nn.Module):
    """Applies a module to the first of the maps."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, maps):
        return self.module(maps[0])


def test_weights_do_not_matter_but_a_weight_of_0_takes_its_term_out():
    guard, data = multitask(), batches()
    before = similarity(guard, data).gradients["guard"]
    guard.criterion_weight, guard.heads["segmentation"].weight = 7.0, 1e-3
    assert np.array_equal(similarity(guard, data).gradients["guard"].mean, before.mean)
    guard.heads["reconstruction"].weight = 0
    fewer = similarity(guard, data).gradients["guard"]
    assert fewer.terms == ("criterion", "segmentation", "energy")
    np.testing.assert_allclose(fewer.mean, np.delete(np.delete(before.mean, 1, 0), 1, 1), rtol=1e-12)


@pytest.mark.parametrize("weighting", [ag.Uncertainty, ag.GradNorm])
def test_a_weighting_does_not_matter(weighting):
    data = batches()
    fixed, adaptive = multitask(), multitask(weighting=weighting())
    assert np.array_equal(
        similarity(adaptive, data).gradients["guard"].mean, similarity(fixed, data).gradients["guard"].mean
    )


def test_batches_in_which_nobody_is_annotated_are_counted_and_left_out():
    guard = multitask()
    some = batches(4)
    data = [(x, y) if i in (0, 2) else (x, y, mask) for i, (x, y, mask) in enumerate(some)]
    found = similarity(guard, data).gradients["guard"]
    annotated = similarity(guard, [some[1], some[3]]).gradients["guard"]
    assert found.terms == ("criterion", "reconstruction", "segmentation", "energy")
    assert found.skipped.tolist() == [[0, 0, 2, 2], [0, 0, 2, 2], [2, 2, 2, 2], [2, 2, 2, 2]]
    np.testing.assert_allclose(found.mean[2:], annotated.mean[2:], rtol=1e-12)


def test_a_frozen_part_of_the_model_does_not_count():
    guard, data = multitask(), batches()
    free = similarity(guard, data).gradients["guard"].mean
    guard.model[0].requires_grad_(False)
    found = similarity(guard, data).gradients["guard"]
    assert np.isnan(found.mean[3]).all() and (found.skipped[3] == 3).all()  # the energy of layer 0 reaches nothing else
    assert found.mean[0, 1] not in (free[0, 1], 1)


def test_penalties_on_gradients_are_terms_like_others():
    torch.manual_seed(0)
    guard = ag.wrap(plain_cnn(), penalties=[ag.RRR(1.0), ag.GradCAMRRR(1.0)])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is blind")
        found = similarity(guard, batches()).gradients["guard"]
    assert found.terms == ("criterion", "rrr", "gradcamrrr") and np.isfinite(found.mean).all()


def test_dicts_carry_all_that_a_guarded_call_takes():
    guard, data = multitask(), batches()
    has = torch.tensor([True, False, True, True])
    named = [{"x": x, "target": y, "mask": m, "annotated": {"mask": has}} for x, y, m in data]
    drawn = [dict(batch, segmentation=m.long()) for batch, (_, _, m) in zip(named, data, strict=True)]
    cut = [(x, y, torch.where(has[:, None, None], m, torch.nan)) for x, y, m in data]
    by_hand = [{"x": x, "target": y, "mask": m, "annotated": has} for x, y, m in cut]
    assert np.array_equal(
        similarity(guard, named).gradients["guard"].mean, similarity(guard, by_hand).gradients["guard"].mean
    )
    both = similarity(guard, drawn).gradients["guard"].mean
    whole = similarity(guard, data).gradients["guard"].mean
    np.testing.assert_allclose(both[1, 2], whole[1, 2], rtol=1e-6)  # every segmentation counts
    assert both[1, 3] != whole[1, 3]  # not every mask


def test_it_measures_in_eval_mode_unless_told_otherwise():
    guard, data = multitask(norm=True, dropout=0.3), batches()
    training = similarity(guard, data, evaluating=False).gradients["guard"].mean
    evaluating = similarity(guard, data).gradients["guard"].mean
    assert not np.array_equal(training, evaluating)
    assert np.array_equal(similarity(guard.eval(), data, evaluating=False).gradients["guard"].mean, evaluating)


def test_dropout_draws_anew_for_every_batch():
    guard, (data,) = multitask(dropout=0.3), batches(1)
    assert similarity(guard, [data] * 3, evaluating=False).gradients["guard"].error[0, 1] > 1e-3
    assert similarity(guard, [data] * 3).gradients["guard"].error[0, 1] < 1e-9


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)])
def test_the_caller_s_modes_change_nothing(around):
    guards, data = {"a": multitask(), "b": multitask(1)}, batches()
    expected = similarity(guards, data)
    with around():
        found = similarity(guards, data)
    assert np.array_equal(found.gradients["b"].mean, expected.gradients["b"].mean)
    assert np.array_equal(found.cka, expected.cka)


# The similarity of features


@pytest.mark.parametrize("pool", [False, True])
def test_cka_is_that_of_all_images_at_once_at_every_level(pool):
    guards = {"cls": classifier(0), "multi": multitask(1), "wide": classifier(2, width=6)}
    data = batches(3, last=1)
    found = similarity(guards, data, pool=pool)
    assert found.layers == ("3", "4") and found.cka.shape == (2, 3, 3) and found.images == 9 and found.batches == 3
    x = torch.cat([images for images, _, _ in data])
    for values, stop in zip(found.cka, (4, 5), strict=True):
        features = [maps(guard.model, x, stop) for guard in guards.values()]
        rows = [f.mean((2, 3)) if pool else rows_by_loops(f) for f in features]
        expected = [[cka_by_gram_matrices(a, b) for b in rows] for a in rows]
        np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_the_cut_into_batches_changes_no_cka():
    guards = {"a": classifier(0), "b": classifier(1)}
    x, y = torch.randn(10, 1, SIZE, SIZE), torch.arange(10) % 2
    whole = similarity(guards, [(x, y)])
    parts = similarity(guards, DataLoader(TensorDataset(x, y), batch_size=4))
    assert parts.batches == 3 and parts.images == whole.images == 10
    np.testing.assert_allclose(parts.cka, whole.cka, rtol=1e-6)


def test_equal_guards_have_similarity_1():
    guard = multitask()
    found = similarity({"this": guard, "copy": copy.deepcopy(guard), "again": guard}, batches())
    np.testing.assert_allclose(found.cka, 1, rtol=1e-12)


def test_the_layers_may_be_chosen():
    guards, data = {"a": classifier(0), "b": classifier(1)}, batches()
    one, several = (similarity(guards, data, layers=layers) for layers in ("3", ["[13]", "6"]))
    assert one.layers == ("3",) and several.layers == ("1", "3", "6")
    assert np.array_equal(one.cka[0], several.cka[1])
    logits = [as_array(g.model(torch.cat([x for x, _, _ in data]))) for g in guards.values()]
    assert several.cka[2, 0, 1] == pytest.approx(cka_by_gram_matrices(*logits), rel=1e-5)


def test_maps_of_different_sizes_are_compared_by_their_means_alone():
    def strided(stride):
        return ag.wrap(nn.Sequential(nn.Conv2d(1, 4, 3, stride), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()))

    guards = {"a": strided(1), "b": strided(2)}
    with pytest.raises(ShapeError, match=r"\(10, 10\), \(5, 5\).*pool=True"):
        similarity(guards, batches(), layers="1")
    assert np.isfinite(similarity(guards, batches(), layers="1", pool=True).cka).all()


def test_one_guard_has_nothing_to_be_compared_with():
    found = similarity(multitask(), batches())
    assert found.cka is None and found.layers == ()


@pytest.mark.parametrize("name", ["resnet18", "swin", "vit"])
def test_it_works_on_timm_s_networks_in_their_own_layouts(name):
    build = {
        "resnet18": lambda: NETWORKS["resnet18"]()[0],
        "swin": lambda: timm.models.SwinTransformer(
            img_size=64, patch_size=4, embed_dim=8, depths=(1, 1), num_heads=(1, 2), window_size=4, num_classes=2
        ),
        "vit": lambda: timm.models.VisionTransformer(64, 16, embed_dim=16, depth=2, num_heads=2, num_classes=2),
    }[name]
    heads = [[], [ag.ReconstructionHead(0.4)]]
    guards = {str(len(h)): ag.wrap(build(), heads=h, example_input=(3, 64, 64)) for h in heads}
    found = similarity(guards, [(torch.randn(2, 3, 64, 64), torch.tensor([0, 1])) for _ in range(2)])
    assert len(found.layers) == {"resnet18": 5, "swin": 2, "vit": 1}[name]
    assert np.isfinite(found.cka).all() and np.isfinite(found.gradients["1"].mean).all()


# No trace


def trace(guard):
    """All that a probe might leave behind, in a form that can be compared."""
    modules = list(guard.modules())
    return {
        "values": {name: value.clone() for name, value in guard.state_dict().items()},
        "objects": [id(x) for x in (*modules, *guard.parameters(), *guard.buffers())],
        "gradients": [None if p.grad is None else (id(p.grad), p.grad.clone()) for p in guard.parameters()],
        "wanted": [p.requires_grad for p in guard.parameters()],
        "flags": [module.training for module in modules],
        "hooks": [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules],
        "own": {name: id(value) for name, value in vars(guard).items() if name != "_modules"},
        "steps": guard._steps,
        "network": {name: id(value) for name, value in vars(guard._network).items()},
        "random": torch.get_rng_state(),
    }


def same(a, b):
    if isinstance(a, torch.Tensor):
        return np.array_equal(as_array(a), as_array(b), equal_nan=True)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b


@pytest.mark.parametrize("evaluating", [True, False])
@pytest.mark.parametrize("fails", [False, True])
def test_the_guards_and_the_random_state_are_afterwards_as_before(evaluating, fails):
    guards = {
        "norm": multitask(norm=True, dropout=0.3, weighting=ag.GradNorm()),
        "new": classifier(1, norm=True, dropout=0.3),
    }
    guards["norm"](*batches(1)[0][:2], mask=batches(1)[0][2]).loss.backward()
    guards["norm"].model[1].eval()
    x, y, mask = (torch.cat(parts) for parts in zip(*batches(), strict=True))
    data = DataLoader(TensorDataset(x, y, mask), batch_size=4, shuffle=True)
    bad = [(x, y, mask), (x, y + 5)]
    before = {name: trace(guard) for name, guard in guards.items()}
    if fails:
        with pytest.raises(RangeError, match="targets from"):
            similarity(guards, bad, evaluating=evaluating)
    else:
        similarity(guards, data, evaluating=evaluating)
    after = {name: trace(guard) for name, guard in guards.items()}
    for name in guards:
        assert [what for what in before[name] if not same(before[name][what], after[name][what])] == []
    assert guards["new"].layers is None


def test_training_goes_on_as_if_nothing_had_been():
    data = batches()
    guard = multitask(norm=True, dropout=0.3, weighting=ag.GradNorm())
    other = copy.deepcopy(guard)

    def train(guard, probe):
        torch.manual_seed(3)
        optimizer = torch.optim.SGD(guard.parameters(), lr=0.1)
        for x, y, mask in data:
            if probe:
                similarity(guard, data, evaluating=False)
            optimizer.zero_grad()
            guard(x, y, mask=mask).loss.backward()
            optimizer.step()
        return guard.state_dict()

    assert same(train(guard, True), train(other, False))


def test_nothing_of_the_graphs_survives():
    guard = multitask()
    with ag.probes.subject.measured(guard, evaluating=True) as subject, torch.enable_grad():
        terms = subject.terms(dict(zip(("x", "target", "mask"), batches(1)[0], strict=True)))
        assert all(term.requires_grad for term in terms.values())
    assert subject._tap.kept == {} and subject.network.capture.recording is None


def test_no_more_batches_are_read_than_asked_for():
    reading = iter(batches(5))
    assert similarity(multitask(), reading, max_batches=2).batches == 2
    assert len(list(reading)) == 3


def test_a_loader_may_differentiate():
    guard = multitask()

    def attacked():
        for x, y, mask in batches():
            x.requires_grad_()
            yield x.detach() + torch.autograd.grad(guard(x, y).loss, x)[0].sign(), y, mask

    assert similarity(guard, attacked()).batches == 3


# What a person reads


def test_the_summary_shows_every_figure_and_what_was_left_out():
    guards = {"cls": classifier(0), "multi": multitask(1)}
    first, other = batches(2)
    found = similarity(guards, [first[:2], other])
    text = found.summary()
    assert text.startswith("8 images in 2 batches\n")
    mean, error = found.gradients["multi"].mean[0, 1], found.gradients["multi"].error[0, 1]
    lines = text.splitlines()
    title = lines.index("multi: cosine between gradients (mean ± standard error)")
    assert lines[title + 1].split() == ["criterion", "reconstruction", "segmentation", "energy"]
    assert lines[title + 2].split()[:1] == ["criterion"] and f"{mean:z.2f} ± {error:.2f}" in lines[title + 2]
    assert len({len(line) for line in lines[title + 1 : title + 6]}) == 1
    assert "left out for criterion and segmentation: 1 of 2 batches" in lines
    assert not any("left out for criterion and reconstruction" in line for line in lines)
    cka = lines.index("4: linear CKA")
    assert lines[cka + 1].split() == ["cls", "multi"]
    assert lines[cka + 3].split() == ["multi", f"{found.cka[1, 1, 0]:.3f}", "1.000"]


def test_the_repr_is_small():
    found = similarity({"cls": classifier(0), "multi": multitask(1)}, batches())
    assert len(repr(found)) < 300 and "array" not in repr(found)


# Bad input


def refuse(kind, match, guards=None, loader=None, **options):
    with pytest.raises(kind, match=match):
        similarity(classifier() if guards is None else guards, batches() if loader is None else loader, **options)


def test_an_empty_loader_is_refused():
    refuse(DataError, "without batches", loader=[])


@pytest.mark.parametrize("loader", [5, None])
def test_what_is_no_loader_is_refused(loader):
    with pytest.raises(TypeMismatchError, match="a loader of"):
        similarity(classifier(), loader)


@pytest.mark.parametrize(
    ("batch", "match"),
    [(torch.zeros(4, 1, SIZE, SIZE), "Tensor"), ((1, 2, 3, 4), "tuple of 4"), ([torch.zeros(1)], "list of 1")],
)
def test_a_batch_of_another_form_is_refused(batch, match):
    refuse(TypeMismatchError, match, loader=[batch])


@pytest.mark.parametrize("change", [{"image": 1}, {"target": ...}, {"x": ...}])
def test_unknown_and_missing_keys_are_refused(change):
    x, y, _ = batches(1)[0]
    batch = {key: value for key, value in ({"x": x, "target": y} | change).items() if value is not ...}
    refuse(RangeError, "keys", loader=[batch])


def test_a_missing_target_is_refused():
    refuse(TypeMismatchError, "without a target", loader=[(batches(1)[0][0], None)])


def test_a_bad_batch_is_refused_as_by_the_guard():
    refuse(TypeMismatchError, "images of torch.int64", loader=[(torch.zeros(2, 1, 4, 4).long(), torch.zeros(2))])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda g: g.model, "Sequential"),
        (lambda g: {}, "{}"),
        (lambda g: {"a": g, "b": None}, "NoneType"),
        (lambda g: {1: g}, "1: Guard"),
        (lambda g: torch.compile(g), "OptimizedModule"),
        (lambda g: [g], "list"),
    ],
    ids=["model", "nothing", "none", "number", "compiled", "list"],
)
def test_what_is_no_guard_is_refused(make, match):
    refuse(TypeMismatchError, match, guards=make(classifier()))


def test_an_unwrapped_guard_is_refused():
    guard = classifier()
    guard.unwrap()
    refuse(ModelError, "unwrap", guards=guard)


def test_a_guard_without_weight_is_refused():
    guard = classifier()
    guard.criterion_weight = 0
    refuse(RangeError, "weights are all 0", guards=guard)


@pytest.mark.parametrize("number", [0, -1, 1.5, True, "1"])
def test_max_batches_is_a_whole_number(number):
    refuse(RangeError, "max_batches", max_batches=number)


def test_an_unknown_layer_is_refused_before_anything_is_measured():
    class Untouchable:
        def __iter__(self):
            raise AssertionError

    guards = {"a": classifier(0), "b": classifier(1)}
    refuse(LayerError, "unknown layer 'nowhere'", guards=guards, loader=Untouchable(), layers="nowhere")


def test_guards_with_other_layers_are_refused():
    guards = {"a": classifier(0), "norm": classifier(1, norm=True)}
    refuse(LayerError, r"\('3', '4'\), \('5', '6'\)", guards=guards)
    refuse(LayerError, "the same in each", guards=guards, layers=[])


def test_networks_without_maps_need_layers():
    def flat():
        return ag.wrap(nn.Sequential(nn.Flatten(), nn.Linear(SIZE * SIZE, 5), nn.ReLU(), nn.Linear(5, 2)))

    guards = {"a": flat(), "b": flat()}
    refuse(LayerError, "name layers", guards=guards)
    assert similarity(guards, batches(), layers="2").cka.shape == (1, 2, 2)
