"""Reference networks, each from a paper; any can be guarded, and timm knows them as ``attribguard_<name>``."""

import attribguard.models.registry  # noqa: F401  (tells timm)
from attribguard.models.actdiff_autoencoder import actdiff_autoencoder, actdiff_unet
from attribguard.models.actdiff_cnn import actdiff_cnn
from attribguard.models.actdiff_resnet18 import actdiff_resnet18
from attribguard.models.conv_decoder import ConvDecoder
from attribguard.models.joint import JointClassifier, joint_classifier
from attribguard.models.joint_cnn import joint_cnn
from attribguard.models.joint_swin import joint_swin
from attribguard.models.mtl_swin_unet import load_swin_unet_state_dict, mtl_swin_unet
from attribguard.models.swin import swin_backbone
from attribguard.models.swin_unet_keys import LoadReport, read_checkpoint
from attribguard.models.t_densenet import t_densenet
from attribguard.models.unet import UNet, unet

__all__ = [
    "ConvDecoder",
    "JointClassifier",
    "LoadReport",
    "UNet",
    "actdiff_autoencoder",
    "actdiff_cnn",
    "actdiff_resnet18",
    "actdiff_unet",
    "joint_classifier",
    "joint_cnn",
    "joint_swin",
    "load_swin_unet_state_dict",
    "mtl_swin_unet",
    "read_checkpoint",
    "swin_backbone",
    "t_densenet",
    "unet",
]
