"""Files of weights as timm reads them, of a network whose tensors are all random."""

import timm
import torch


def write_weights(name, path):
    """Write the weights of a timm network, norms and running statistics random too, and return the network."""
    model = timm.create_model(name)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point() and tensor.dim() < 2:
                tensor.uniform_(0.5, 1.5)
    torch.save(model.state_dict(), path)
    return model.eval()
