"""fully_shard(wrap(model)) on two processes is one process on the joined batch, or refused by name."""

import re

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

import attribguard as ag
from attribguard.errors import ModelError
from tests.contracts.terms import EVERYTHING, FIRST_ORDER, SITUATIONS, N, assert_close, data, make, step
from tests.heads.small import SHAPE, strided
from tests.two_processes import run_two

WHOLE = [name for name in EVERYTHING if " over all" not in name]
# Inside a network that is sharded in parts the classifier stays with the guard.
BLOCKS = ("0", "1")


def blocks():
    """`strided` as two blocks and what is left."""
    layers = strided()
    return nn.Sequential(layers[:3], layers[3:6], *layers[6:])


def mlp():
    """As `blocks`, with a classifier that is not linear and not sharded."""
    network = blocks()
    return nn.Sequential(*network[:-1], nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))


def sharded(guard, parts=(), **options):
    mesh = init_device_mesh(next(guard.parameters()).device.type, (dist.get_world_size(),))
    for part in parts:
        fully_shard(guard.model.get_submodule(part), mesh=mesh)
    return fully_shard(guard, mesh=mesh, **options)


def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gradients(guard, situation, rows, parts=1):
    guard.zero_grad()
    for i, chunk in enumerate(rows.chunk(parts)):
        if parts > 1:
            guard.set_requires_gradient_sync(i == parts - 1)
        (step(guard, guard, data(situation), chunk).loss / parts).backward()
    return {
        name: torch.zeros_like(whole(p), device="cpu") if p.grad is None else whole(p.grad).cpu().clone()
        for name, p in guard.named_parameters()
    }


def situations(guard, rows):
    return {situation: gradients(guard, situation, rows) for situation in SITUATIONS}


def between_steps(guard, rows):
    """The gradients after an optimizer's step before which the loss was looked at without gradients.

    (By default torch itself keeps what is at the root gathered meanwhile, and goes on with its old values.)
    """
    optimizer = torch.optim.SGD(guard.parameters(), lr=0.1)
    gradients(guard, "uneven", rows)
    with torch.no_grad():
        step(guard, guard, data("uneven"), rows)
    optimizer.step()
    return gradients(guard, "uneven", rows)


def corrupted_thrice():
    """Corrupted passes of which two are compared in the middle of one block, and one before it."""
    wanted = {"shuffle": ("1.3",), "zero": ("3",), "mean": ("0.0",)}
    penalties = [ag.ActDiff(5.0, corruption=how, layers=layers, name=how) for how, layers in wanted.items()]
    return ag.wrap(blocks(), penalties=penalties, example_input=SHAPE)


def behind_the_blocks():
    """An inner gradient that passes nothing but the classifier."""
    return ag.wrap(mlp(), penalties=[ag.GradCAMRRR(1.0)], example_input=SHAPE)


OWN = {"three corruptions": corrupted_thrice, "a classifier of two layers": behind_the_blocks}


def of_name(name, network=strided):
    if name not in OWN:
        return make(name, network)
    torch.manual_seed(0)
    return OWN[name]()


def partly_sharded(guard):
    fully_shard(guard.model[0], mesh=init_device_mesh("cpu", (2,)))
    return guard


def with_penalty(penalty, parts, network=blocks, **options):
    return sharded(ag.wrap(network(), penalties=[penalty], **options), parts)


def early_model():
    model = blocks()
    fully_shard(model[0], mesh=init_device_mesh("cpu", (2,)))
    ag.wrap(model)


def weighted():
    guard = make("Uncertainty over all")
    mesh = init_device_mesh("cpu", (2,))
    return fully_shard(guard, mesh=mesh, ignored_params=set(guard.weighting.parameters()))


def predicted():
    sharded(make("SegmentationHead")).predict(data("uneven")["x"])


# What is refused -> the call that is, and words of the error.
EARLY = ag.GradCAMRRR(1.0, layer="0")
REFUSED = {
    "an input gradient through blocks": (lambda: with_penalty(ag.GradMask(1.0), BLOCKS, example_input=SHAPE), "'0'"),
    "one that is not known before": (lambda: with_penalty(ag.RRR(1.0), BLOCKS), "'0'"),
    "an early layer's gradient": (lambda: with_penalty(EARLY, BLOCKS, example_input=SHAPE), "'1'"),
    "a classifier apart": (lambda: with_penalty(ag.GradCAMRRR(1.0), ["4"], example_input=SHAPE), "'4'"),
    "one apart that is not known before": (lambda: with_penalty(ag.GradCAMRRR(1.0), ["4"]), "'4'"),
    "the model and the guard": (lambda: with_penalty(ag.GradCAMRRR(1.0), [""], example_input=SHAPE), "'the model'"),
    "a part without the guard": (lambda: partly_sharded(of_name("ActDiff", blocks)), r"fully_shard\(guard\) too"),
    "a weighting": (weighted, "weighting"),
    "a model before it is wrapped": (early_model, r"fully_shard\(wrap\(model, ...\)\)"),
    "another call": (predicted, "register_fsdp_forward_method"),
}


def refusal(call):
    """The error of making a guard in this way and of one step with it."""
    try:
        guard = call()
        if guard is not None:
            step(guard, guard, data("uneven"), torch.arange(N // 2))
    except ModelError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def predictions():
    guard = sharded(make("SegmentationHead"))
    register_fsdp_forward_method(guard, "predict")
    return guard.predict(data("uneven")["x"]).predictions["segmentation"].detach()


def work(rank):
    rows = torch.arange(N).chunk(2)[rank]
    found = {name: situations(sharded(make(name)), rows) for name in WHOLE}
    for name in WHOLE:
        found[name]["in parts"] = gradients(sharded(make(name)), "uneven", rows, parts=2)
    first_order = (*FIRST_ORDER, *OWN)
    return {
        "whole": found,
        "blocks": {name: situations(sharded(of_name(name, blocks), BLOCKS), rows) for name in first_order},
        "between steps": between_steps(sharded(of_name("ActDiff", blocks), BLOCKS, reshard_after_forward=True), rows),
        "refused": {name: refusal(call) for name, (call, _) in REFUSED.items()},
        "predictions": predictions(),
    }


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    if not hasattr(torch.cpu.current_stream(), "record_event"):
        pytest.skip("this torch shards no parameters on the CPU")
    return run_two(work, folder=tmp_path_factory.mktemp("sharded"))


def of_one(name, network=strided):
    return situations(of_name(name, network), torch.arange(N))


@pytest.mark.parametrize("name", WHOLE)
def test_a_sharded_guard_has_the_gradients_of_one_process(processes, name):
    expected = of_one(name)
    for process in processes:
        for situation in SITUATIONS:
            assert_close(process["whole"][name][situation], expected[situation])
        assert_close(process["whole"][name]["in parts"], expected["uneven"])


@pytest.mark.parametrize("name", [*FIRST_ORDER, *OWN])
def test_first_order_terms_let_blocks_be_sharded_apart(processes, name):
    expected = of_one(name, blocks)
    for process in processes:
        for situation in SITUATIONS:
            assert_close(process["blocks"][name][situation], expected[situation])


def test_a_step_without_gradients_leaves_no_old_parameters_behind(processes):
    expected = between_steps(of_name("ActDiff", blocks), torch.arange(N))
    for process in processes:
        assert_close(process["between steps"], expected)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_sharded_is_refused_by_name_in_each_process(processes, name):
    for process in processes:
        error = process["refused"][name]
        assert error.startswith("got ") and "; needed " in error, error
        assert re.search(REFUSED[name][1], error), error


def test_predict_works_once_torch_knows_that_it_is_a_forward_method(processes):
    guard = make("SegmentationHead")
    expected = guard.predict(data("uneven")["x"]).predictions["segmentation"]
    for process in processes:
        torch.testing.assert_close(process["predictions"], expected, rtol=1e-5, atol=1e-6)
