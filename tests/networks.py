"""Networks for the tests: small ones written here, and the ones that users have."""

import timm
import torch
import torch.nn.functional as F
import torchvision
from torch import nn


class FunctionalNet(nn.Module):
    """Activations as functions, one of them in place."""

    def __init__(self, channels=3, classes=2):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 6, 3, stride=2, padding=1)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = F.relu(self.norm1(self.conv1(x)), inplace=True)
        x = F.gelu(self.conv2(x))
        return self.fc(x.mean((2, 3)))


class PairOutput(nn.Module):
    """Gives a tuple."""

    def __init__(self):
        super().__init__()
        self.net = plain_cnn(channels=3)

    def forward(self, x):
        return x.mean(), self.net(x)


def plain_cnn(channels=1, outputs=2, *, norm=False, dropout=0.0, inplace=False, width=4):
    """Two convolutions, pooling, a linear layer; without normalisation or dropout it treats each image alone."""
    layers = []
    for cin, cout in ((channels, width), (width, 2 * width)):
        layers += [nn.Conv2d(cin, cout, 3, padding=1)]
        layers += [nn.BatchNorm2d(cout)] if norm else []
        layers += [nn.ReLU(inplace)]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(8 * width, outputs))


def batch(n=4, channels=1, size=12, classes=2, dtype=torch.float32):
    """Images, targets, and masks with a relevant square of a third of the side."""
    x = torch.randn(n, channels, size, size, dtype=dtype)
    mask = torch.zeros(n, 1, size, size, dtype=dtype)
    mask[:, :, size // 3 : 2 * size // 3, size // 3 : 2 * size // 3] = 1
    return x, torch.arange(n) % classes, mask


def _timm(name, size):
    return lambda: (timm.create_model(name, num_classes=2), (3, size, size))


# name -> a function that makes the network and the shape of its images
NETWORKS = {
    "plain_cnn": lambda: (plain_cnn(channels=3, norm=True), (3, 24, 24)),
    "functional": lambda: (FunctionalNet(), (3, 24, 24)),
    "one_channel": lambda: (plain_cnn(channels=1, inplace=True), (1, 17, 23)),
    "torchvision_resnet18": lambda: (torchvision.models.resnet18(num_classes=2), (3, 64, 64)),
    "resnet18": _timm("resnet18", 64),
    "densenet121": _timm("densenet121", 64),
    "efficientnet_b0": _timm("efficientnet_b0", 64),
    "convnext_atto": _timm("convnext_atto", 64),
    "swin_tiny_patch4_window7_224": _timm("swin_tiny_patch4_window7_224", 224),
    "vit_tiny_patch16_224": _timm("vit_tiny_patch16_224", 224),
}
