"""The second family's decoder: fused features -> the face that speaks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from models.conv import Conv2d, Conv2dTranspose, residual, scaled


class Up(nn.Module):
    """Doubles the size of a feature and joins what the encoder saw at that size."""

    def __init__(self, cin: int, skip: int, cout: int) -> None:
        super().__init__()
        self.up = Conv2dTranspose(cin, cout, 3, 2, 1, 1)
        self.join = nn.Sequential(Conv2d(cout + skip, cout, 3, 1, 1), residual(cout))

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """x (B, cin, h, w), skip (B, C, 2h, 2w) -> (B, cout, 2h, 2w)."""
        return self.join(torch.cat((self.up(x), skip), dim=1))


class LipGenerator(nn.Module):
    """U-Net decoder. channels: of what joins at 1/32, 1/16, ... and 1/1 of the picture's size."""

    def __init__(self, channels: Sequence[int], width: float) -> None:
        super().__init__()
        deepest, *skips = channels
        widths = [scaled(n, width) for n in (256, 256, 128, 64, 32)]
        self.stages = nn.ModuleList(
            Up(cin, skip, cout)
            for cin, skip, cout in zip([deepest, *widths], skips, widths, strict=False)
        )
        self.channels = widths[-1]
        self.picture = nn.Sequential(nn.Conv2d(self.channels, 3, 1), nn.Sigmoid())

    def forward(self, features: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Features (B, C, h, w), the smallest first -> the last layer's (B, channels, H, W) and the
        picture (B, 3, H, W), BGR in 0..1.
        """
        x, *skips = features
        for stage, skip in zip(self.stages, skips, strict=True):
            x = stage(x, skip)
        return x, self.picture(x)
