"""DDP(wrap(model)) on two processes is one process on the joined batch."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

import attribguard as ag
from tests.networks import batch, plain_cnn

ANNOTATED = torch.tensor([True, True, False, True, False, False, False, False])  # the second process has none


def make(norm):
    torch.manual_seed(0)
    model = plain_cnn(norm=norm)
    return model, ag.wrap(model, penalties=[ag.ActDiff(10.0, corruption="zero")], example_input=(1, 12, 12))


def data():
    torch.manual_seed(1)
    return batch(8)


def check_whole(x):
    """What runs must not depend on one process's annotations: rows are left out nowhere."""
    assert len(x) == 4


def train(call, model, rows):
    x, y, mask = data()
    for _ in range(2):
        model.zero_grad()
        out = call(x[rows], y[rows], mask=mask[rows], annotated=ANNOTATED[rows])
        out.loss.backward()
    return [p.grad.clone() for p in model.parameters()]


def worker(rank, port, norm, folder):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        model, guard = make(norm)
        model[0].register_forward_hook(lambda module, args, out: check_whole(args[0]))
        gradients = train(DistributedDataParallel(guard), model, slice(4 * rank, 4 * rank + 4))
        torch.save(gradients, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()


def two_processes(norm, folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(port, norm, str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


def test_two_processes_equal_one(tmp_path):
    model, guard = make(norm=False)
    expected = train(guard, model, slice(None))
    for gradients in two_processes(False, tmp_path):
        for ours, theirs in zip(gradients, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_batchnorm_without_annotated_rows_on_one_process_neither_hangs_nor_diverges(tmp_path):
    first, second = two_processes(True, tmp_path)
    for ours, theirs in zip(first, second, strict=True):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, theirs)
