"""Convolution blocks of the Wav2Lip family. Attribute names are part of the released checkpoints'
keys.
"""

from __future__ import annotations

import torch
from torch import nn


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, at least 8 (and never more than asked for at width 1)."""
    return channels if width == 1 else max(8, round(channels * width))


class Conv2d(nn.Module):
    """Conv2d + BatchNorm2d + ReLU; with `residual` the input is added before the ReLU."""

    def __init__(
        self,
        cin: int,
        cout: int,
        kernel_size: int,
        stride: int | tuple[int, int],
        padding: int,
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
