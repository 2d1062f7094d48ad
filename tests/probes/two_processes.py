"""Runs a function in two processes that know of each other."""

import os
import socket

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def run_two(measure, shares, folder):
    """What `measure(shares[name][rank])` gives, by rank and name; `measure` must be importable."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_work, args=(port, str(folder), measure, shares), nprocs=2)
    return [torch.load(f"{folder}/{rank}.pt", weights_only=False) for rank in range(2)]


def _work(rank, port, folder, measure, shares):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    try:
        torch.save({name: measure(share[rank]) for name, share in shares.items()}, f"{folder}/{rank}.pt")
    finally:
        dist.destroy_process_group()
