"""Runs a function in two processes that know of each other."""

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_two(function, *args, folder):
    """What `function(rank, *args)` gives in each of two processes; the function must be importable."""
    mp.spawn(_work, args=(str(folder), function, args), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(2)]


def _work(rank, folder, function, args):
    torch.set_num_threads(1)
    # They meet at a file: a port that was free a moment ago may be taken by another test.
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        torch.save(function(rank, *args), f"{folder}/{rank}.pt")
        dist.barrier()  # torch 2.6 may wait for ever where one takes the group down while the other is at work
    finally:
        dist.destroy_process_group()
