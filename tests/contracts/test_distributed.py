"""DDP(wrap(model)) on two and on four processes is one process on the joined batch."""

import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import attribguard as ag
from attribguard.errors import ModelError
from tests.contracts.synced_norm import SyncedNorm, synced
from tests.contracts.terms import (
    EVERYTHING,
    HALF,
    SECOND_ORDER,
    SITUATIONS,
    TOGETHER,
    UNEVEN,
    N,
    assert_close,
    data,
    gradients,
    make,
    step,
)
from tests.heads.small import SHAPE, strided
from tests.two_processes import run_processes

PROCESSES = (2, 4)
WITH_NORM = ("ActDiff", "GradCAMRRR", "GradMask", "heads without a criterion", "all together", "GradNorm over all")


def share(rank, n):
    return torch.arange(N).chunk(n)[rank]


def situations(call, guard, rows):
    return {situation: gradients(call, guard, situation, rows) for situation in SITUATIONS}


def all_rows_enter(module, args):
    assert len(args[0]) == module.rows, "what runs must not depend on one process's annotations"


def gradients_of_one(rank, n, device="cpu"):
    """Everything in every situation; at last accumulated from two parts of which only the second is synchronised."""
    found = {}
    for name in EVERYTHING:
        guard, rows = make(name).to(device), share(rank, n)
        step(guard, guard, data("uneven"), rows)  # which finds out, with images of its own, whether samples are coupled
        call = DistributedDataParallel(guard)
        guard.model[0].rows = len(rows)
        handle = guard.model[0].register_forward_pre_hook(all_rows_enter)
        found[name] = situations(call, guard, rows)
        handle.remove()
        if guard.weighting is None:
            found[name]["in parts"] = gradients(call, guard, "uneven", rows, parts=2, unsynced=call.no_sync)
    return found


def trained(call, guard, rows):
    """The parameters after two steps of an optimizer."""
    optimizer = torch.optim.SGD(guard.parameters(), lr=0.01)
    for situation in SITUATIONS[:2]:
        optimizer.zero_grad()
        step(call, guard, data(situation), rows).loss.backward()
        optimizer.step()
    return {name: p.detach().clone() for name, p in guard.named_parameters()}


def trained_of_one(rank, n, name):
    guard = make(name)
    if rank:  # what counts is what the first process starts from
        torch.nn.init.zeros_(guard.heads["segmentation"].decoder.out.weight)
    return trained(DistributedDataParallel(guard), guard, share(rank, n))


def normed():
    return strided(norm=True)


def synced_normed():
    return synced(normed())


def normed_of_one(rank, n, name, network):
    """Gradients, buffers and the number of synchronised passes of a network with batch normalisation."""
    before = SyncedNorm.passes
    guard = make(name, network)
    found = situations(DistributedDataParallel(guard), guard, share(rank, n))
    return found, dict(guard.model.named_buffers()), SyncedNorm.passes - before


class Steep(ag.Penalty):
    """So steep on the last image alone that its gradient overflows where it is scaled against underflow."""

    def forward(self, trace):
        return trace.logits.exp().sum(1) * torch.where(trace.batch.x[:, 0, 0, 0] > 2, 1e36, 1.0)


def factors(call, guard, rows):
    """The gradients of GradNorm's factors, after a step in which one image is brighter than any."""
    arguments = data("uneven")
    arguments["x"][-1, 0, 0, 0] = 3.0
    step(call, guard, arguments | {"annotated": torch.ones(N, dtype=torch.bool)}, rows).loss.backward()
    return {name: p.grad.clone() for name, p in guard.weighting.named_parameters()}


def steep(network):
    torch.manual_seed(0)
    terms = {"penalties": [ag.ActDiff(5.0), Steep(1.0)], "heads": [ag.ReconstructionHead(0.3)]}
    return ag.wrap(network(), weighting=ag.GradNorm(), example_input=SHAPE, **terms)


def factors_of_one(rank, n):
    guard = steep(synced_normed)
    return factors(DistributedDataParallel(guard), guard, share(rank, n))


def refusals():
    """What is said of penalties on gradients around a network with torch's own synchronised norms."""
    errors = {}
    for name in EVERYTHING:
        try:
            make(name, lambda: nn.SyncBatchNorm.convert_sync_batchnorm(normed()))
        except ModelError as error:
            errors[name] = str(error)
    return errors


def work(rank, n):
    return {
        "refused": refusals(),
        "factors": factors_of_one(rank, n),
        "gradients": gradients_of_one(rank, n),
        "trained": {name: trained_of_one(rank, n, name) for name in ("a loss a sample", "heads without a criterion")},
        "local norm": normed_of_one(rank, n, "all together", normed),
        "synced norm": {name: normed_of_one(rank, n, name, synced_normed) for name in WITH_NORM},
    }


@pytest.fixture(scope="module", params=PROCESSES, ids="{} processes".format)
def processes(request, tmp_path_factory):
    return run_processes(request.param, work, request.param, folder=tmp_path_factory.mktemp("processes"))


@pytest.fixture(scope="module")
def one():
    """Name to the gradients, and the buffers, of one process that sees all images, worked out once."""
    known = {}

    def of(name, network=strided):
        if (name, network) not in known:
            guard = make(name, network)
            known[name, network] = situations(guard, guard, torch.arange(N)), dict(guard.model.named_buffers())
        return known[name, network]

    return of


@pytest.mark.parametrize("name", EVERYTHING)
def test_gradients_of_the_processes_are_those_of_one(processes, one, name):
    for process in processes:
        for situation in SITUATIONS:
            assert_close(process["gradients"][name][situation], one(name)[0][situation])


@pytest.mark.parametrize("name", [name for name in EVERYTHING if " over all" not in name])
def test_accumulation_without_synchronising_adds_up_to_one_batch(processes, one, name):
    for process in processes:
        assert_close(process["gradients"][name]["in parts"], one(name)[0]["uneven"])


@pytest.mark.parametrize("name", ["a loss a sample", "heads without a criterion"])
def test_an_optimizer_leads_all_processes_to_the_parameters_of_one(processes, name):
    guard = make(name)
    expected = trained(guard, guard, torch.arange(N))
    for process in processes:
        ours = process["trained"][name]
        assert all(torch.equal(value, processes[0]["trained"][name][key]) for key, value in ours.items())
        assert_close(ours, expected)


@pytest.mark.parametrize("name", WITH_NORM)
def test_synchronised_norms_neither_hang_nor_part_and_equal_one(processes, one, name):
    expected, statistics = one(name, normed)
    _, buffers, passes = processes[0]["synced norm"][name]
    for found, ours, ours_passes in (process["synced norm"][name] for process in processes):
        assert ours_passes == passes > 0
        for situation in SITUATIONS:
            assert_close(found[situation], expected[situation], together=True)
        for key, value in statistics.items():
            assert torch.equal(ours[key], buffers[key])
            torch.testing.assert_close(ours[key], value, rtol=1e-5, atol=1e-6)


def test_gradnorm_scales_alike_in_all_processes_where_one_gradient_overflows(processes):
    guard = steep(normed)
    expected = factors(guard, guard, torch.arange(N))
    assert min(expected[f"factor_{name}"].abs() for name in ("criterion", "actdiff", "reconstruction")) > 0
    for process in processes:
        for name, value in expected.items():
            torch.testing.assert_close(process["factors"][name], value, rtol=1e-4, atol=1e-6)


def test_penalties_on_gradients_through_torchs_synchronised_norms_are_refused_by_name(processes):
    for process in processes:
        assert list(process["refused"]) == [*SECOND_ORDER, *TOGETHER]
        assert all(
            "'1', a SyncBatchNorm; needed" in error or "'4', a" in error for error in process["refused"].values()
        )


def test_norms_of_its_own_in_each_process_give_all_the_same_finite_gradients(processes):
    first, *others = (process["local norm"][0] for process in processes)
    assert all(g.isfinite().all() for found in first.values() for g in found.values())
    for found in others:
        for situation in SITUATIONS:
            assert all(torch.equal(g, first[situation][key]) for key, g in found[situation].items())


@pytest.mark.parametrize("n", PROCESSES)
def test_the_shares_are_uneven_one_is_empty_and_one_has_no_positive(n):
    def of(situation, name):
        return [int(part.sum()) for part in data(situation)[name].chunk(n)]

    assert len({*of("uneven", "annotated")}) > 1 and min(of("uneven", "annotated")) > 0
    assert min(of("nobody annotated", "annotated")) == 0 < max(of("nobody annotated", "annotated"))
    for name in ("target", "segmentation"):
        assert min(of("no positive", name)) == 0 < max(of("no positive", name))
    assert (UNEVEN & HALF).any()


@pytest.mark.parametrize("name", EVERYTHING)
def test_each_term_has_a_part_in_the_gradients_that_are_compared(one, name):
    guard = make(name)
    guard.criterion_weight = 0.0
    alone = gradients(guard, guard, "uneven", torch.arange(N))
    assert max(g.abs().max() for g in alone.values()) > 1e-2
