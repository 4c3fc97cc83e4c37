"""The second family's picture encoders: torchvision's ResNet-50 and EfficientNet-B0, for six
channels and any width.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torchvision.models.efficientnet import EfficientNet, MBConvConfig
from torchvision.models.resnet import Bottleneck

from errors import InputError
from models.conv import scaled

KINDS = ("resnet50", "efficientnet_b0")
MEAN, STD = (0.406, 0.456, 0.485), (0.225, 0.224, 0.229)  # of ImageNet, BGR


class FaceEncoder(nn.Module):
    """Two pictures on top of each other -> features at 1/2, 1/4, 1/8, 1/16 and 1/32 of their size,
    with `channels` channels.
    """

    def __init__(self, kind: str, width: float) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"unknown face_encoder {kind!r}; choose one of {', '.join(KINDS)}")
        self.kind = kind
        create = resnet50 if kind == "resnet50" else efficientnet_b0
        self.body, self.taps, self.channels, self._first = create(width)
        self.register_buffer("mean", torch.tensor(MEAN * 2)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD * 2)[:, None, None], persistent=False)

    def forward(self, faces: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Faces (B, 6, H, W) in 0..1, the largest feature first."""
        x = (faces - self.mean) / self.std
        features = []
        for index, layer in enumerate(self.body):
            x = layer(x)
            if index in self.taps:
                features.append(x)
        return tuple(features)

    def load_imagenet(self, state: dict[str, torch.Tensor]) -> None:
        """torchvision's weights for ImageNet; the classifier's are left. The first convolution's,
        made for one RGB picture, serve both of ours, at half their size so that the sum stays.
        InputError where they are of another network.
        """
        found = {key.removeprefix("features."): value for key, value in state.items()}
        wanted, first = self.body.state_dict(), found.get(self._first)
        if first is not None and first.dim() == 4 and first.shape[1] == 3:
            found[self._first] = first.flip(1).repeat(1, 2, 1, 1) / 2
        misfits = [
            key
            for key, value in wanted.items()
            if key not in found or found[key].shape != value.shape
        ]
        if misfits:
            raise InputError(
                f"{len(misfits)} of {len(wanted)} tensors do not fit, {misfits[0]} among them; "
                "they need the same face_encoder and width 1"
            )
        self.body.load_state_dict({key: found[key] for key in wanted})


def resnet50(width: float) -> tuple[nn.Sequential, tuple[int, ...], tuple[int, ...], str]:
    """ResNet-50 (He et al. 2015) of torchvision's blocks and parameter keys, without its
    classifier: layers, those of them whose output is a feature, the features' channels, the first
    convolution's key.
    """

    def stage(cin: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
        cout = planes * Bottleneck.expansion
        shortcut = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))
        others = (Bottleneck(cout, planes) for _ in range(blocks - 1))
        return nn.Sequential(Bottleneck(cin, planes, stride, shortcut), *others)

    stem = scaled(64, width)
    planes = [scaled(n, width) for n in (64, 128, 256, 512)]
    channels = [stem, *(n * Bottleneck.expansion for n in planes)]
    layers: dict[str, nn.Module] = {
        "conv1": nn.Conv2d(6, stem, 7, 2, 3, bias=False),
        "bn1": nn.BatchNorm2d(stem),
        "relu": nn.ReLU(),
        "maxpool": nn.MaxPool2d(3, 2, 1),
    }
    for index, (count, stride) in enumerate(((3, 1), (4, 2), (6, 2), (3, 2))):
        layers[f"layer{index + 1}"] = stage(channels[index], planes[index], count, stride)
    body = nn.Sequential(OrderedDict(layers))
    for module in body.modules():
        if isinstance(module, nn.Conv2d):  # as torchvision begins
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return body, (2, 4, 5, 6, 7), tuple(channels), "conv1.weight"


def efficientnet_b0(width: float) -> tuple[nn.Sequential, tuple[int, ...], tuple[int, ...], str]:
    """As `resnet50`, of EfficientNet-B0 (Tan and Le 2019, table 1). Nothing is dropped at random:
    five frames of one clip are to look alike.
    """
    stages = [
        MBConvConfig(*row, width_mult=width)
        for row in (  # expansion, kernel, stride, channels in and out, blocks
            (1, 3, 1, 32, 16, 1),
            (6, 3, 2, 16, 24, 2),
            (6, 5, 2, 24, 40, 2),
            (6, 3, 2, 40, 80, 3),
            (6, 5, 1, 80, 112, 3),
            (6, 5, 2, 112, 192, 4),
            (6, 3, 1, 192, 320, 1),
        )
    ]
    network = EfficientNet(stages, dropout=0.0, stochastic_depth_prob=0.0)
    body = network.features[:8]  # what follows belongs to the classifier
    first = nn.Conv2d(6, stages[0].input_channels, 3, 2, 1, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out")
    body[0][0] = first
    taps = (1, 2, 3, 5, 7)
    channels = tuple(stages[tap - 1].out_channels for tap in taps)
    return body, taps, channels, "0.0.weight"
