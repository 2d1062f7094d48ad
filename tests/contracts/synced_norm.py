"""Batch normalisation over all processes that runs on the CPU, where torch's SyncBatchNorm refuses to."""

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.nn.functional import all_reduce


class SyncedNorm(nn.BatchNorm2d):
    """BatchNorm2d over the images of all processes, equally many in each; its sums are differentiated across them.

    Like torch's, it talks to the other processes in each training pass, forward and backward, and waits for ever where
    they do not.
    """

    passes = 0  # how often one of them ran in train mode

    def forward(self, x):
        if not self.training:
            return super().forward(x)
        SyncedNorm.passes += 1
        n = len(x) * x.shape[2] * x.shape[3] * dist.get_world_size()
        # What comes back keeps no copy of what was sent, which all_reduce overwrites.
        mean = all_reduce(x.sum((0, 2, 3))) / n
        centred = x - mean[:, None, None]
        variance = all_reduce(centred.square().sum((0, 2, 3))) / n
        with torch.no_grad():
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / (n - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight / (variance + self.eps).sqrt()
        return centred * scale[:, None, None] + self.bias[:, None, None]


def synced(model):
    """The model with each BatchNorm2d replaced, in place."""
    for name, module in list(model.named_children()):
        if type(module) is nn.BatchNorm2d:
            twin = SyncedNorm(module.num_features)
            twin.load_state_dict(module.state_dict())
            setattr(model, name, twin)
        else:
            synced(module)
    return model
