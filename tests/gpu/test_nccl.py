"""One process a GPU: DDP, SyncBatchNorm and fully_shard over NCCL give what one GPU gives for the joined batch."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from attribguard.errors import ModelError
from tests.contracts.terms import EVERYTHING, FIRST_ORDER, SECOND_ORDER, SITUATIONS, N, assert_close, data, make, step
from tests.contracts.test_distributed import gradients_of_one, normed, share, situations
from tests.contracts.test_sharded import BLOCKS, WHOLE, blocks, sharded
from tests.contracts.test_sharded import situations as sharded_situations
from tests.two_processes import run_processes

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
    pytest.mark.skipif(not (dist.is_available() and dist.is_nccl_available()), reason="needs torch with NCCL"),
]
# Equal shares of the images, none too small to be parted once more.
DEVICES = max(n for n in (1, 2, 4) if n <= max(1, torch.cuda.device_count()))


def exact():
    """Convolutions and products in float32, not in the coarser TF32 that they take on newer devices."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def converted():
    return nn.SyncBatchNorm.convert_sync_batchnorm(normed())


def norms_of_one(rank, name):
    guard = make(name, converted).cuda()
    found = situations(DistributedDataParallel(guard), guard, share(rank, DEVICES))
    return found, {key: value.cpu() for key, value in guard.model.named_buffers()}


def refusal(name):
    """The error, or nothing."""
    try:
        guard = make(name, converted).cuda()
        step(guard, guard, data("uneven"), torch.arange(N // DEVICES)).loss.backward()
    except ModelError as error:
        return str(error)
    return ""


def work(rank):
    exact()
    rows = share(rank, DEVICES)
    return {
        "gradients": gradients_of_one(rank, DEVICES, "cuda"),
        "norms": {name: norms_of_one(rank, name) for name in FIRST_ORDER},
        "refused": {name: refusal(name) for name in SECOND_ORDER},
        "whole": {name: sharded_situations(sharded(make(name).cuda()), rows) for name in WHOLE},
        "blocks": {name: sharded_situations(sharded(make(name, blocks).cuda(), BLOCKS), rows) for name in FIRST_ORDER},
    }


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    return run_processes(DEVICES, work, folder=tmp_path_factory.mktemp("gpus"), backend="nccl")


@pytest.fixture
def one(monkeypatch):
    """The guard of a name on one GPU, and its gradients for the joined batch."""
    for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
        monkeypatch.setattr(backend, "allow_tf32", False)

    def of(name, *network):
        guard = make(name, *network).cuda()
        return guard, situations(guard, guard, torch.arange(N))

    return of


@pytest.mark.parametrize("name", EVERYTHING)
def test_a_process_a_gpu_has_the_gradients_of_one(processes, one, name):
    _, expected = one(name)
    for process in processes:
        for situation in SITUATIONS:
            assert_close(process["gradients"][name][situation], expected[situation])
        if "in parts" in process["gradients"][name]:
            assert_close(process["gradients"][name]["in parts"], expected["uneven"])


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_synchronised_norms_neither_hang_nor_part(processes, one, name):
    guard, _ = one(name, normed)
    _, first = processes[0]["norms"][name]
    for found, buffers in (process["norms"][name] for process in processes):
        assert all(g.isfinite().all() for of in found.values() for g in of.values())
        for key, value in guard.model.named_buffers():
            assert torch.equal(buffers[key], first[key])
            torch.testing.assert_close(buffers[key], value.cpu(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_gradients_of_gradients_through_synchronised_norms_are_refused_where_there_are_several(processes, name):
    for process in processes:
        assert ("SyncBatchNorm" in process["refused"][name]) == (DEVICES > 1)


@pytest.mark.parametrize("name", WHOLE)
def test_a_guard_sharded_over_the_gpus_has_the_gradients_of_one(processes, one, name):
    _, expected = one(name)
    for process in processes:
        for situation in SITUATIONS:
            assert_close(process["whole"][name][situation], expected[situation])


@pytest.mark.parametrize("name", FIRST_ORDER)
def test_blocks_sharded_apart_over_the_gpus_have_the_gradients_of_one(processes, one, name):
    _, expected = one(name, blocks)
    for process in processes:
        for situation in SITUATIONS:
            assert_close(process["blocks"][name][situation], expected[situation])
