"""Convolution blocks of the Wav2Lip family, and the stages that larger pictures add to it.
Attribute names are part of the released checkpoints' keys.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from errors import InputError

# img_size: the stages beyond the released 96, smallest first, by the size of their picture, with
# how many times smaller the next stage's is
ADDED_STAGES = {96: {}, 192: {"192": 2}, 288: {"288": 3}, 384: {"192": 2, "384": 2}}


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, at least 8 (and never more than asked for at width 1)."""
    return channels if width == 1 else max(8, round(channels * width))


class Conv2d(nn.Module):
    """Conv2d + BatchNorm2d + ReLU; with `residual` the input is added before the ReLU."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int],
        padding: int | tuple[int, int],
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.Conv2d(cin, cout, kernel_size, stride, padding), nn.BatchNorm2d(cout)
        )
        self.act = nn.ReLU()
        self.residual = residual

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.conv_block(x)
        return self.act(out + x if self.residual else out)


class Conv2dTranspose(nn.Module):
    """ConvTranspose2d + BatchNorm2d + ReLU."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel_size: int,
        stride: int,
        padding: int,
        output_padding: int = 0,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            nn.ConvTranspose2d(cin, cout, kernel_size, stride, padding, output_padding),
            nn.BatchNorm2d(cout),
        )
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv_block(x))


class nonorm_Conv2d(nn.Module):  # noqa: N801  (released name)
    """Conv2d + LeakyReLU(0.01): the discriminator has no normalisation."""

    def __init__(
        self, cin: int, cout: int, kernel_size: int, stride: int | tuple[int, int], padding: int
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(cin, cout, kernel_size, stride, padding))
        self.act = nn.LeakyReLU(0.01)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.conv_block(x))


def audio_layers(width: float, residuals_at_256: int) -> nn.Sequential:
    """Mel window (B, 1, 80, 16) -> (B, 512 * width, 1, 1); the generator and the expert differ in
    one residual layer.
    """
    c32, c64, c128, c256, c512 = (scaled(c, width) for c in (32, 64, 128, 256, 512))
    layers: list[nn.Module] = []
    for cin, cout, stride, residuals in (
        (1, c32, 1, 2),
        (c32, c64, (3, 1), 2),
        (c64, c128, 3, 2),
        (c128, c256, (3, 2), residuals_at_256),
    ):
        layers += [Conv2d(cin, cout, 3, stride, 1), *(residual(cout) for _ in range(residuals))]
    return nn.Sequential(*layers, Conv2d(c256, c512, 3, 1, 0), Conv2d(c512, c512, 1, 1, 0))


def residual(channels: int) -> Conv2d:
    return Conv2d(channels, channels, 3, 1, 1, residual=True)


def added_stages(img_size: int) -> dict[str, int]:
    """ADDED_STAGES of a picture size; InputError where there is no model of that size."""
    if img_size not in ADDED_STAGES:
        sizes = ", ".join(map(str, ADDED_STAGES))
        raise InputError(f"no model has img_size {img_size}; choose one of {sizes}")
    return ADDED_STAGES[img_size]


class EncoderStage(nn.Module):
    """The feature of a picture larger than 96, and what of it joins the next smaller one's.

    `join` begins at zero: a larger model starts as the smaller one that it contains, and goes on
    from the smaller one's weights without a jolt. conv: Conv2d, or the discriminator's.
    """

    def __init__(self, conv: type[nn.Module], cin: int, cout: int, joined: int, factor: int):
        super().__init__()
        self.factor = factor
        self.feature = nn.Sequential(conv(cin, cout, 7, 1, 3), conv(cout, cout, 3, 1, 1))
        # 3 wide where the size halves and 5 where it falls to a third: neighbours overlap
        self.join = zeroed(nn.Conv2d(cout, joined, 2 * factor - 1, factor, 1))


class DecoderStage(nn.Module):
    """Enlarges the decoder's feature and adds detail to the picture drawn so far."""

    def __init__(self, cin: int, cout: int, skip: int, factor: int):
        super().__init__()
        self.factor = factor
        self.up = nn.Sequential(
            Conv2dTranspose(cin, cout, 2 * factor - 1, factor, 1, 3 - factor),
            residual(cout),
            residual(cout),
        )
        self.output_block = nn.Sequential(
            Conv2d(cout + skip, cout, 3, 1, 1), zeroed(nn.Conv2d(cout, 3, 1))
        )

    def forward(
        self, x: torch.Tensor, feature: torch.Tensor, picture: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """x (B, cin, h, w), the encoder's feature (B, skip, H, W) and the picture before its
        sigmoid (B, 3, h, w) -> (B, cout + skip, H, W) and (B, 3, H, W).
        """
        x = torch.cat((self.up(x), feature), dim=1)
        larger = F.interpolate(picture, scale_factor=self.factor, mode="bilinear")
        return x, larger + self.output_block(x)


def encoder_stages(
    conv: type[nn.Module], cin: int, joined: int, width: float, img_size: int
) -> nn.ModuleDict:
    """The EncoderStages of a picture with `cin` channels, in front of a released first block with
    `joined` channels. Empty at 96.
    """
    channels, stages = scaled(16, width), nn.ModuleDict()
    for name, factor in added_stages(img_size).items():
        stages[name] = EncoderStage(conv, cin, channels, joined, factor)
        joined = channels
    return stages


def decoder_stages(cin: int, cout: int, skip: int, img_size: int) -> nn.ModuleDict:
    """The DecoderStages behind a released decoder that ends with `cin` channels; each gives `cout`
    and the encoder's `skip`. Empty at 96.
    """
    stages = nn.ModuleDict()
    for name, factor in added_stages(img_size).items():
        stages[name] = DecoderStage(cin, cout, skip, factor)
        cin = cout + skip
    return stages


def encode_larger(
    stages: nn.ModuleDict, first_block: nn.Module, picture: torch.Tensor
) -> list[torch.Tensor]:
    """Features of `picture` (B, C, H, W) at its own size and each smaller one, down to that of
    `first_block`: the released encoder's, which sees the whole picture shrunk to 96.
    """
    features, joined = [], None
    for stage in reversed(stages.values()):  # the largest first
        feature = stage.feature(picture)
        features.append(feature if joined is None else feature + joined)
        joined = stage.join(features[-1])
        picture = F.avg_pool2d(picture, stage.factor)
    feature = first_block(picture)
    return [*features, feature if joined is None else feature + joined]


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
