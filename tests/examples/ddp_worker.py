"""What torchrun starts twice in the test of `examples/ddp.py`: the example's command, then trainings to compare."""

import contextlib
import os
import runpy
import sys

import torch
import torch.distributed as dist

from attribguard.data import Crosses
from examples import ddp as example

OPTIONS = ["--images", "32", "--annotated", "8", "--epochs", "1"]


def trained(annotated):
    """This process's network after a short training with so many masks."""
    torch.manual_seed(0)
    return example.train(example.PartlyAnnotated(Crosses("train", 32), annotated), epochs=2, batch=4)


def weights(network):
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def run_the_command():
    sys.argv = ["ddp.py", *OPTIONS]
    with contextlib.suppress(SystemExit):  # what it prints is looked at
        runpy.run_module("examples.ddp", run_name="__main__")


def main(folder):
    rank = int(os.environ["RANK"])
    run_the_command()
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        some, none = trained(annotated=16), trained(annotated=0)
        found = {"some": weights(some), "none": weights(none)}
        with torch.no_grad():
            some.fc.bias += 0.5 * rank
        found["disagreement"] = example.disagreement(some)
        torch.save(found, f"{folder}/{rank}.pt")
        dist.barrier()
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1])
