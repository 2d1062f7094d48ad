"""Runs a function in two or more processes that know of each other."""

import datetime
import os

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

PATIENCE = datetime.timedelta(minutes=10)  # where one waits for what the others never send


def run_two(function, *args, folder):
    """As `run_processes`, in two."""
    return run_processes(2, function, *args, folder=folder)


def run_processes(n, function, *args, folder, backend="gloo"):
    """What `function(rank, *args)` gives in each of n processes; the function must be importable.

    With the backend "nccl" each has a GPU of its own, and what it gives should be on the CPU.
    """
    mp.spawn(_work, args=(n, str(folder), backend, function, args), nprocs=n)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(n)]


def _work(rank, n, folder, backend, function, args):
    torch.set_num_threads(1)
    if backend == "nccl":
        torch.cuda.set_device(rank)
    # They meet at a file: a port that was free a moment ago may be taken by another test.
    meeting = f"file://{folder}/meeting"
    dist.init_process_group(backend, init_method=meeting, rank=rank, world_size=n, timeout=PATIENCE)
    try:
        torch.save(function(rank, *args), f"{folder}/{rank}.pt")
        dist.barrier()
        # Not by taking the group down: in torch 2.6 its thread may then wait for Python's lock, and who holds that for
        # the thread.
        os._exit(0)
    finally:
        dist.destroy_process_group()
