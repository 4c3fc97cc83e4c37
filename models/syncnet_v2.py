"""SyncNet v2, the judge of the paper's LSE metrics (Chung and Zisserman, "Out of time", 2016).

Its parameter keys are the released file's (`syncnet_v2.model`), so that those weights load. It is
only ever evaluated here: nothing trains it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from errors import InputError
from models.conv import scaled

MFCC_COLUMNS = 20  # of an audio window: 0.2 s, as long as its five frames
MFCC_STEP = 4  # columns from one frame's window to the next: 100 a second at 25 fps


def _conv(
    cin: int, cout: int, kernel: int | tuple, stride: int | tuple = 1, padding: int | tuple = 0
) -> list[nn.Module]:
    """Convolution + batch norm + ReLU; over time as well where the kernel has three sides."""
    if isinstance(kernel, tuple) and len(kernel) == 3:
        return [nn.Conv3d(cin, cout, kernel, stride, padding), nn.BatchNorm3d(cout), nn.ReLU()]
    return [nn.Conv2d(cin, cout, kernel, stride, padding), nn.BatchNorm2d(cout), nn.ReLU()]


def _head(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(cin, cin), nn.BatchNorm1d(cin), nn.ReLU(), nn.Linear(cin, cout))


class SyncNet_v2(nn.Module):  # noqa: N801  (the golden state dict's name)
    """Embeds 0.2 s of MFCC and of lips so that what belongs together lies close (Euclidean).

    width: channels of every layer times this, at least 8. 1 is the released model. img_size: as of
    the other models; it has this one.
    """

    key = "netcnnlip.0.weight"
    fits_any_size = True

    def __init__(self, width: float = 1.0, img_size: int = 96) -> None:
        super().__init__()
        if img_size != 96:
            raise InputError(f"SyncNet_v2 has one picture size: img_size {img_size} is not for it")
        self.width, self.img_size = width, img_size
        c64, c96, c192, c256, c384, c512, c1024 = (
            scaled(c, width) for c in (64, 96, 192, 256, 384, 512, 1024)
        )
        self.netcnnaud = nn.Sequential(  # 13 x 20
            *_conv(1, c64, 3, 1, 1),
            nn.MaxPool2d(1, 1),  # does nothing, but holds its place in the released keys
            *_conv(c64, c192, 3, 1, 1),
            nn.MaxPool2d(3, (1, 2)),  # 11 x 9
            *_conv(c192, c384, 3, 1, 1),
            *_conv(c384, c256, 3, 1, 1),
            *_conv(c256, c256, 3, 1, 1),
            nn.MaxPool2d(3, 2),  # 5 x 4
            *_conv(c256, c512, (5, 4)),  # 1 x 1
        )
        self.netfcaud = _head(c512, c1024)
        self.netfclip = _head(c512, c1024)
        self.netcnnlip = nn.Sequential(  # T x 224 x 224
            *_conv(3, c96, (5, 7, 7), (1, 2, 2)),  # T-4 x 109 x 109
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),  # 54
            *_conv(c96, c256, (1, 5, 5), (1, 2, 2), (0, 1, 1)),  # 26
            nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1)),  # 13
            *_conv(c256, c256, (1, 3, 3), 1, (0, 1, 1)),
            *_conv(c256, c256, (1, 3, 3), 1, (0, 1, 1)),
            *_conv(c256, c256, (1, 3, 3), 1, (0, 1, 1)),
            nn.MaxPool3d((1, 3, 3), (1, 2, 2)),  # 6
            *_conv(c256, c512, (1, 6, 6)),  # 1
        )

    def forward_aud(self, mfcc: torch.Tensor) -> torch.Tensor:
        """MFCC windows (B, 1, 13, 20) -> (B, 1024)."""
        return self.netfcaud(self.netcnnaud(mfcc).flatten(1))

    def forward_lip(self, frames: torch.Tensor) -> torch.Tensor:
        """BGR frames 0..255 (B, 3, T, 224, 224), T >= 5 -> one row for each of the T-4 windows of
        five: (B * (T-4), 1024).

        Only the first layer looks across time, so a whole clip costs what its windows cost, without
        five copies of every frame.
        """
        lips = self.netcnnlip(frames)  # (B, 512, T-4, 1, 1)
        return self.netfclip(lips.flatten(2).transpose(1, 2).flatten(0, 1))

    def forward(
        self, mfcc: torch.Tensor, frames: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(audio_embedding, lip_embedding); see forward_aud and forward_lip."""
        return self.forward_aud(mfcc), self.forward_lip(frames)


def mfcc(wav: np.ndarray) -> np.ndarray:
    """13 cepstral coefficients of int16 speech (n,) at 16 kHz, 100 columns a second: (13, C).

    python_speech_features at its defaults: those of the released weights.
    """
    import python_speech_features

    return python_speech_features.mfcc(wav, 16000).T


def mfcc_windows(coefficients: np.ndarray, count: int) -> np.ndarray:
    """The audio windows of frames 0..count-1: (13, C) -> float32 (count, 1, 13, 20)."""
    windows = np.lib.stride_tricks.sliding_window_view(coefficients, MFCC_COLUMNS, axis=1)
    chosen = windows[:, : MFCC_STEP * count : MFCC_STEP]  # (13, count, 20)
    return chosen.transpose(1, 0, 2)[:, None].astype(np.float32)
