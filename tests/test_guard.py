"""What a guarded step promises: the loss, the modes, the buffers, the random state, and nothing left behind."""

import gc
import warnings
import weakref

import pytest
import torch
from torch import nn

import attribguard as ag
from attribguard.capture import is_hooked
from tests.networks import batch, plain_cnn


def gradients(model):
    return [p.grad.clone() for p in model.parameters()]


def rows_seen(model):
    """How many images each pass of the first convolution got."""
    seen = []
    model[0].register_forward_hook(lambda module, args, out: seen.append(len(args[0])))
    return seen


class Keeps(ag.Penalty):
    """Mean square of the logits; calls `look` with the trace."""

    def __init__(self, weight=1.0, look=lambda trace: None, **declared):
        super().__init__(weight, layers=declared.pop("layers", ()), name=declared.pop("name", None))
        self.look = look
        for attribute, value in declared.items():
            setattr(self, attribute, value)

    def forward(self, trace):
        self.look(trace)
        return trace.logits.square().mean(1)


def test_without_penalties_the_step_is_the_plain_step():
    model = plain_cnn(norm=True)
    x, y, _ = batch()
    expected = nn.functional.cross_entropy(model(x), y)
    expected.backward()
    plain = gradients(model)
    model.zero_grad()
    out = ag.wrap(model)(x, y)
    out.loss.backward()
    assert torch.equal(out.loss, expected)
    assert all(map(torch.equal, gradients(model), plain))


def test_loss_is_the_weighted_sum_of_the_unweighted_terms():
    guard = ag.wrap(plain_cnn(), penalties=[ag.ActDiff(2.0), Keeps(0.5)], criterion_weight=0.25)
    x, y, mask = batch()
    out = guard(x, y, mask=mask)
    assert out.weights == {"criterion": 0.25, "actdiff": 2.0, "keeps": 0.5}
    assert out.predictions == {}
    torch.testing.assert_close(sum(out.weights[name] * term for name, term in out.terms.items()), out.loss.detach())
    assert not any(term.requires_grad or term.shape for term in out.terms.values())


def test_a_weight_can_be_changed_between_steps():
    penalty = ag.ActDiff(0.0)
    guard = ag.wrap(plain_cnn(), penalties=[penalty])
    x, y, mask = batch()
    assert torch.equal(guard(x, y, mask=mask).loss, guard(x, y, mask=mask).terms["criterion"])
    penalty.weight = 4.0
    out = guard(x, y, mask=mask)
    assert out.weights["actdiff"] == 4.0
    torch.testing.assert_close(out.loss, out.terms["criterion"] + 4 * out.terms["actdiff"])


def test_a_criterion_may_return_one_value_an_image():
    per_image = nn.CrossEntropyLoss(reduction="none")
    x, y, _ = batch()
    model = plain_cnn()
    torch.testing.assert_close(ag.wrap(model, criterion=per_image)(x, y).loss, ag.wrap(model)(x, y).loss)


def test_full_mask_costs_nothing_and_a_partial_mask_does():
    guard = ag.wrap(plain_cnn(norm=True), penalties=[ag.ActDiff(1.0)])
    x, y, mask = batch()
    assert guard(x, y, mask=torch.ones_like(mask)).terms["actdiff"] == 0
    assert guard(x, y, mask=mask).terms["actdiff"] > 0


@pytest.mark.parametrize("form", ["bool", "int", "float", "without channel axis"])
def test_masks_of_zeros_and_ones_count_alike_in_every_form(form):
    guard = ag.wrap(plain_cnn(), penalties=[ag.ActDiff(1.0, corruption="zero")])
    x, y, mask = batch()
    forms = {"bool": mask.bool(), "int": mask.long(), "float": mask.double(), "without channel axis": mask[:, 0]}
    assert torch.equal(guard(x, y, mask=forms[form]).loss, guard(x, y, mask=mask).loss)


def test_dilate_is_dilation_of_the_mask():
    x, y, mask = batch()
    guard = ag.wrap(plain_cnn(), penalties=[ag.ActDiff(1.0, corruption="zero", dilate=2)])
    wide = guard(x, y, mask=mask)
    guard = ag.wrap(guard.unwrap(), penalties=[ag.ActDiff(1.0, corruption="zero")])
    assert torch.equal(guard(x, y, mask=ag.masks.dilate(mask, 2)).loss, wide.loss)
    assert not torch.equal(guard(x, y, mask=mask).loss, wide.loss)


def test_batchnorm_statistics_move_by_the_clean_pass_alone():
    model, alone = plain_cnn(norm=True), plain_cnn(norm=True)
    alone.load_state_dict(model.state_dict())
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0), ag.ActDiff(1.0, corruption="zero", name="zero")])
    x, y, mask = batch()
    for _ in range(2):
        guard(x, y, mask=mask)
        alone(x)
    assert model[1].num_batches_tracked == 2
    for (name, ours), theirs in zip(model.named_buffers(), alone.buffers(), strict=True):
        assert torch.equal(ours, theirs), name


def test_the_corrupted_pass_normalises_by_its_own_batch():
    model = plain_cnn(norm=True)
    x, y, mask = batch()
    seen = {}
    corruption = ag.Corruption("zero")

    class Look(ag.Penalty):
        def forward(self, trace):
            seen["ours"] = trace.corrupted(self.corruption).features["1"].detach()
            return trace.logits.sum(1)

    penalty = Look(1.0, layers="1")
    penalty.corruption = corruption
    ag.wrap(model, penalties=[penalty])(x, y, mask=mask)
    mean, std = seen["ours"].mean((0, 2, 3)), seen["ours"].std((0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(4), atol=1e-6, rtol=0)
    torch.testing.assert_close(std, torch.ones(4), atol=1e-3, rtol=0)


def test_dropout_is_the_same_in_both_passes():
    guard = ag.wrap(plain_cnn(dropout=0.5), penalties=[ag.ActDiff(1.0)])
    x, y, mask = batch()
    assert guard(x, y, mask=torch.ones_like(mask)).terms["actdiff"] == 0


def test_dropout_differs_between_steps_and_draws_as_the_plain_model_does():
    model = plain_cnn(dropout=0.5)
    x, y, mask = batch()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0, corruption="zero")], example_input=(1, 12, 12))
    torch.manual_seed(3)
    first, second = guard(x, y, mask=mask).logits, guard(x, y, mask=mask).logits
    after = torch.rand(3)
    torch.manual_seed(3)
    assert torch.equal(model(x), first)
    assert torch.equal(model(x), second)
    assert not torch.equal(first, second)
    assert torch.equal(torch.rand(3), after)


def test_the_dry_run_leaves_no_trace():
    model = plain_cnn(norm=True, dropout=0.5)
    model[1].eval()
    flags = [module.training for module in model.modules()]
    example = torch.randn(2, 1, 12, 12)
    state, random = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=example)
    assert [module.training for module in model.modules()] == flags
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_modes_stay_as_each_module_had_them():
    model = plain_cnn(norm=True, dropout=0.5).eval()
    model[3].train()
    flags = [module.training for module in model.modules()]
    x, y, mask = batch()
    ag.wrap(model, penalties=[ag.ActDiff(1.0)])(x, y, mask=mask)
    assert [module.training for module in model.modules()] == flags


def test_one_main_pass_and_one_corrupted_pass_a_corruption():
    model = plain_cnn()
    penalties = [
        ag.ActDiff(1.0),
        ag.ActDiff(1.0, norm="l2", layers="0", name="second"),
        ag.ActDiff(1.0, corruption="zero", name="third"),
        Keeps(1.0),
    ]
    guard = ag.wrap(model, penalties=penalties, example_input=(1, 12, 12))
    seen = rows_seen(model)
    x, y, mask = batch()
    guard(x, y, mask=mask)
    assert seen == [4, 4, 4]


def test_the_corrupted_pass_ends_at_the_last_layer_that_is_asked_for():
    model = plain_cnn()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=(1, 12, 12))
    ran = []
    model[-1].register_forward_hook(lambda module, args, out: ran.append(1))
    x, y, mask = batch()
    guard(x, y, mask=mask)
    assert len(ran) == 1


ANNOTATED = torch.tensor([False, True, False, True])


def test_rows_without_annotation_are_left_out_of_the_corrupted_pass():
    model = plain_cnn()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=(1, 12, 12))
    x, y, mask = batch()
    guard(x, y, mask=mask, annotated=ANNOTATED)  # measures once whether samples are coupled
    seen = rows_seen(model)
    guard(x, y, mask=mask, annotated=ANNOTATED)
    guard(x, y, mask=mask, annotated=torch.zeros(4, dtype=torch.bool))
    assert seen == [4, 2, 4]


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(0)


@pytest.mark.parametrize("coupling", ["BatchNorm", "a module of the user's", "dropout"])
def test_all_rows_run_where_one_changes_another(coupling):
    kinds = {"BatchNorm": {"norm": True}, "dropout": {"dropout": 0.5}}
    model = plain_cnn(**kinds.get(coupling, {}))
    if coupling == "a module of the user's":
        model.insert(1, Centred())
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=(1, 12, 12))
    x, y, mask = batch()
    guard(x, y, mask=mask, annotated=ANNOTATED)
    seen = rows_seen(model)
    guard(x, y, mask=mask, annotated=ANNOTATED)
    assert seen == [4, 4]


def test_coupling_is_judged_anew_when_modes_change():
    model = plain_cnn(norm=True).eval()
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=(1, 12, 12))
    x, y, mask = batch()
    for mode, rows in ((False, 2), (True, 4), (False, 2)):
        model.train(mode)
        guard(x, y, mask=mask, annotated=ANNOTATED)
        seen = rows_seen(model)
        guard(x, y, mask=mask, annotated=ANNOTATED)
        assert seen[-1] == rows


def test_leaving_rows_out_changes_no_number(monkeypatch):
    model = plain_cnn().double()
    x, y, mask = batch(dtype=torch.float64)
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0, corruption="zero")])
    results = []
    for apart in (True, False):
        monkeypatch.setattr(guard._network, "couples_samples", lambda x, points, apart=apart: not apart)
        model.zero_grad()
        out = guard(x, y, mask=mask, annotated=ANNOTATED)
        out.loss.backward()
        results.append([out.loss.detach(), *gradients(model)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)


def test_one_annotated_row_of_a_one_by_one_map_runs_under_batchnorm():
    model = nn.Sequential(nn.Conv2d(1, 4, 12), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4, 2))
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)])
    x, y, mask = batch()
    out = guard(x, y, mask=mask, annotated=torch.tensor([True, False, False, False]))
    out.loss.backward()
    assert out.terms["actdiff"] > 0


def test_rows_without_annotation_have_exactly_zero_gradient_even_with_nan_masks():
    x, y, mask = batch()
    x.requires_grad_()
    mask[~ANNOTATED] = float("nan")
    for norm in (False, True):
        guard = ag.wrap(plain_cnn(norm=norm), penalties=[ag.ActDiff(1.0)], criterion_weight=0.0)
        x.grad = None
        out = guard(x, y, mask=mask, annotated=ANNOTATED)
        out.loss.backward()
        assert out.terms["actdiff"] > 0
        assert out.loss.isfinite()
        if not norm:  # BatchNorm itself carries gradient from one image to another
            assert (x.grad[~ANNOTATED] == 0).all()
        assert x.grad[ANNOTATED].abs().sum() > 0


def test_the_mean_is_over_the_batch_or_over_the_annotated_rows():
    x, y, mask = batch()
    model = plain_cnn()
    term = {}
    for reduction in ("batch", "annotated"):
        guard = ag.wrap(model, penalties=[ag.ActDiff(1.0, corruption="zero")], reduction=reduction)
        term[reduction] = guard(x, y, mask=mask, annotated=torch.tensor([True, False, False, False])).terms["actdiff"]
        guard.unwrap()
    torch.testing.assert_close(term["annotated"], 4 * term["batch"])


def test_a_penalty_counts_on_annotated_rows_alone_whatever_it_returns_on_others():
    guard = ag.wrap(plain_cnn(), penalties=[Keeps()])
    x, y, mask = batch()
    out = guard(x, y, mask=mask, annotated=ANNOTATED)
    expected = (out.logits.square().mean(1) * ANNOTATED).sum() / 4
    torch.testing.assert_close(out.terms["keeps"], expected.detach())


@pytest.mark.parametrize("given", ["no mask", "nobody"])
@pytest.mark.parametrize("reduction", ["batch", "annotated"])
def test_no_annotated_row_gives_an_exact_zero_that_backward_accepts(given, reduction):
    model = plain_cnn(norm=True)
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], criterion_weight=0.0, reduction=reduction)
    x, y, mask = batch()
    annotations = {} if given == "no mask" else {"mask": mask, "annotated": torch.zeros(4, dtype=torch.bool)}
    out = guard(x, y, **annotations)
    out.loss.backward()
    assert out.terms["actdiff"] == 0
    assert all((p.grad == 0).all() for p in model.parameters())


def test_two_halves_accumulate_to_the_whole_batch():
    model = plain_cnn()
    guard = ag.wrap(model, penalties=[ag.ActDiff(10.0, corruption="zero")])
    x, y, mask = batch(8)
    annotated = torch.arange(8) < 3
    guard(x, y, mask=mask, annotated=annotated).loss.backward()
    whole = gradients(model)
    model.zero_grad()
    for rows in (slice(0, 4), slice(4, 8)):
        (guard(x[rows], y[rows], mask=mask[rows], annotated=annotated[rows]).loss / 2).backward()
    for ours, theirs in zip(gradients(model), whole, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-6)


def test_the_callers_tensors_stay_as_they_are():
    guard = ag.wrap(plain_cnn(), penalties=[ag.ActDiff(1.0), Keeps(needs_input_gradient=True)])
    tensors = batch()
    before = [t.clone() for t in tensors]
    guard(tensors[0], tensors[1], mask=tensors[2]).loss.backward()
    assert all(map(torch.equal, tensors, before))
    assert all(t.grad is None and not t.requires_grad for t in tensors)


def test_no_captured_tensor_outlives_the_call():
    kept = []
    look = Keeps(look=lambda trace: kept.append(weakref.ref(trace.features["0"])), layers=("0",))
    guard = ag.wrap(plain_cnn(), penalties=[look, ag.ActDiff(1.0)])
    x, y, mask = batch()
    gc.disable()  # no reference cycle may be needed to be broken first
    try:
        out = guard(x, y, mask=mask)
        out.loss.backward()
        del out
        assert kept[0]() is None
    finally:
        gc.enable()
    assert guard._network.capture.recording is None


def broken(trace):
    raise ZeroDivisionError


@pytest.mark.parametrize("where", ["penalty", "model", "corruption", "hook"])
def test_an_exception_leaves_nothing_behind(where):
    model = plain_cnn(norm=True, dropout=0.5)
    corruption = broken if where == "corruption" else "zero"
    penalties = [ag.ActDiff(1.0, corruption=lambda x, mask: corruption(x) if callable(corruption) else x * mask)]
    if where == "penalty":
        penalties.append(Keeps(look=broken))
    guard = ag.wrap(model, penalties=penalties, example_input=(1, 12, 12))
    if where == "model":
        # the second pass alone, the moment when buffers are lent and the random state is turned back
        calls = []
        model[3].register_forward_hook(
            lambda module, args, out: calls.append(1) or (len(calls) == 2 and broken(0)) or out
        )
    if where == "hook":
        model[0].register_forward_hook(lambda module, args, out: broken(0))
    x, y, mask = batch()
    ours = dict(model.named_buffers())
    flags = [module.training for module in model.modules()]
    with pytest.raises(ZeroDivisionError):
        guard(x, y, mask=mask)
    assert guard._network.capture.recording is None
    assert [module.training for module in model.modules()] == flags
    assert all(buffer is ours[name] for name, buffer in model.named_buffers())
    assert model[1].num_batches_tracked <= 1


def test_unwrap_gives_the_model_back_without_hooks():
    model = plain_cnn()
    keys = list(model.state_dict())
    mine = model[0].register_forward_hook(lambda module, args, out: None)
    guard = ag.wrap(model, penalties=[ag.ActDiff(1.0)], example_input=(1, 12, 12))
    assert is_hooked(model)
    assert list(guard.model.state_dict()) == keys
    assert guard.unwrap() is model
    assert not is_hooked(model)
    hooks = [hook for m in model.modules() for hook in (*m._forward_hooks, *m._forward_pre_hooks)]
    assert hooks == [mine.id]
    x, y, mask = batch()
    assert torch.equal(guard(x), model(x))
    with pytest.raises(ag.errors.ModelError, match="wrap the model again"):
        guard(x, y, mask=mask)
    ag.wrap(model, penalties=[ag.ActDiff(1.0)])(x, y, mask=mask)


def test_an_empty_mask_on_an_annotated_row_warns_once():
    guard = ag.wrap(plain_cnn(), penalties=[ag.ActDiff(1.0)])
    x, y, mask = batch()
    mask[1] = 0
    with pytest.warns(UserWarning, match="empty on an annotated row"):
        guard(x, y, mask=mask)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        guard(x, y, mask=mask)


def test_an_input_gradient_is_the_models_and_is_shared():
    scores, gradients_seen = [], []

    def score(logits, target):
        scores.append(1)
        return logits[:, 1] - logits[:, 0]

    class Gradient(ag.Penalty):
        needs_input_gradient = True

        def forward(self, trace):
            gradient = trace.input_gradient(score)
            gradients_seen.append(gradient)
            return gradient.square().flatten(1).sum(1)

    model = nn.Sequential(plain_cnn(), nn.Identity())
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    guard = ag.wrap(model, penalties=[Gradient(1.0), Gradient(1.0, name="again")])
    x, y, mask = batch()
    out = guard(x, y, mask=mask)
    assert len(scores) == 1
    assert gradients_seen[0] is gradients_seen[1]
    leaf = x.clone().requires_grad_()
    logits = model(leaf)
    (expected,) = torch.autograd.grad((logits[:, 1] - logits[:, 0]).sum(), leaf, create_graph=True)
    torch.testing.assert_close(gradients_seen[0], expected)
    total = nn.functional.cross_entropy(logits, y) + 2 * expected.square().flatten(1).sum(1).mean()
    total.backward()
    expected_gradients = gradients(model)
    model.zero_grad()
    out.loss.backward()
    for ours, theirs in zip(gradients(model), expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.inference_mode():
        quiet = guard(x, y, mask=mask)
    torch.testing.assert_close(quiet.loss, out.loss.detach())
    assert not quiet.loss.requires_grad and not quiet.logits.requires_grad


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_terms_come_back_without_a_graph_where_none_is_wanted(context):
    guard = ag.wrap(plain_cnn(norm=True), penalties=[ag.ActDiff(1.0, corruption="zero")])
    x, y, mask = batch()
    with context():
        out = guard(x, y, mask=mask)
    assert not out.loss.requires_grad
    torch.testing.assert_close(out.terms["actdiff"], guard(x, y, mask=mask).terms["actdiff"])


def test_trace_forward_runs_the_model_with_the_same_dropout_and_unmoved_statistics():
    seen = {}

    def look(trace):
        seen["again"] = trace.forward(trace.batch.x)
        seen["main"] = trace.logits

    model = plain_cnn(norm=True, dropout=0.5)
    guard = ag.wrap(model, penalties=[Keeps(look=look)])
    x, y, mask = batch()
    guard(x, y, mask=mask)
    assert torch.equal(seen["again"], seen["main"])
    assert model[1].num_batches_tracked == 1


@pytest.mark.parametrize("undeclared", ["corruption", "input gradient"])
def test_what_a_penalty_did_not_declare_is_refused_by_name(undeclared):
    def look(trace):
        if undeclared == "corruption":
            trace.corrupted(ag.Corruption("zero"))
        trace.input_gradient("target")

    guard = ag.wrap(plain_cnn(), penalties=[Keeps(look=look)])
    x, y, mask = batch()
    with pytest.raises(ag.errors.ModelError, match=r"corruption|needs_input_gradient"):
        guard(x, y, mask=mask)
