"""A guard in several processes: DistributedDataParallel around it, masks on some of the images only.

    torchrun --standalone --nproc-per-node 2 -m examples.ddp --annotated 100

trains on crosses (see `plain_loop.py`), each process on its share of every epoch's images, for about half a minute.
The first process prints how much the processes' weights differ at the end, which is 0, and the AUC.
"""

from __future__ import annotations

from typing import Annotated

import torch
import torch.distributed as dist
import typer
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from attribguard.data import Crosses
from examples.plain_loop import auc, falling, guarded


class PartlyAnnotated(Dataset[tuple[Tensor, ...]]):
    """Crosses of which only the first so many have a mask; in place of the others' stands anything."""

    def __init__(self, crosses: Crosses, annotated: int) -> None:
        self.crosses, self.annotated = crosses, annotated

    def __len__(self) -> int:
        return len(self.crosses)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        x, y, mask = self.crosses[index]
        counts = index < self.annotated
        return x, y, mask if counts else torch.full_like(mask, torch.nan), torch.tensor(counts)


def train(data: PartlyAnnotated, epochs: int, weight: float = 10.0, batch: int = 16) -> nn.Module:
    """Train in a process group that is already there; gives this process's network, the same in all of them."""
    guard = guarded(weight)
    distributed = DistributedDataParallel(guard)  # around the guard, so that a whole step is one call of it
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=batch, sampler=sampler)
    optimizer = torch.optim.Adam(guard.parameters(), lr=3e-3)
    schedule = falling(optimizer, epochs * len(loader))
    for epoch in range(epochs):
        sampler.set_epoch(epoch)
        for x, y, mask, annotated in loader:
            optimizer.zero_grad()
            # A process may have no annotated image in its batch: its penalty is 0, and its gradient still takes part.
            distributed(x, y, mask=mask, annotated=annotated).loss.backward()
            optimizer.step()
            schedule.step()
    return guard.unwrap()


def disagreement(network: nn.Module) -> float:
    """The largest difference of any weight between any two processes."""
    highest = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    lowest = highest.clone()
    dist.all_reduce(highest, dist.ReduceOp.MAX)
    dist.all_reduce(lowest, dist.ReduceOp.MIN)
    return (highest - lowest).max().item()


def main(
    seed: Annotated[int, typer.Option(min=0, help="Of images, weights and order.")] = 0,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    images: Annotated[int, typer.Option(min=2, help="To train on.")] = 500,
    annotated: Annotated[int, typer.Option(min=0, help="How many of them have a mask.")] = 100,
) -> None:
    """Train a small network on crosses with ActDiff in several processes; start it with torchrun."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")  # torchrun has told it all through the environment
    try:
        torch.manual_seed(seed)
        data = Crosses("train", images, seed=seed)
        network = train(PartlyAnnotated(data, annotated), epochs)
        largest = disagreement(network)
        if dist.get_rank() == 0:
            scores = f"train {auc(network, data):.3f}, test {auc(network, Crosses('test', 128, seed=seed)):.3f}"
            print(f"{dist.get_world_size()} processes, weights differ by {largest:g}; AUC: {scores}")
        dist.barrier()  # torch 2.6 may wait for ever where one takes the group down while the other is at work
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    typer.run(main)
