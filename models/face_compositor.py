"""What of the generated face is used: a soft mask, which keeps all but the mouth as it was."""

from __future__ import annotations

import torch
from torch import nn

from models.conv import Conv2d, zeroed
from models.feather import feather_mask

FIRST_LOGIT = 2.0  # an untrained mask takes 0.88 of the generated: else that would learn slowly


class FaceCompositor(nn.Module):
    """A mask (B, 1, H, W) in 0..1 and the blend by it.

    It is 0 in the upper half and falls softly to 0 at the edges of the lower one, where the frame
    that the face is pasted into goes on.
    """

    def __init__(self, channels: int, img_size: int) -> None:
        super().__init__()
        last = zeroed(nn.Conv2d(channels, 1, 1))
        nn.init.constant_(last.bias, FIRST_LOGIT)
        self.mask = nn.Sequential(Conv2d(channels, channels, 3, 1, 1), last, nn.Sigmoid())
        window = torch.tensor(feather_mask(img_size, img_size, "lower"))[..., 0]
        self.register_buffer("window", window, persistent=False)  # (H, W)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """The decoder's last feature (B, C, H, W) -> the mask."""
        return self.mask(feature) * self.window


def compose(faces: torch.Tensor, generated: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Frames (B, 3, H, W): generated where the mask is 1; where it is 0 the target's own upper half
    and the reference's lower one (faces (B, 6, H, W) as for the model).

    At inference the reference is the target, so what is kept is right to the pixel. In training it
    is another frame: keeping what has moved since costs L1.
    """
    half = faces.shape[2] // 2
    kept = torch.cat((faces[:, :3, :half], faces[:, 3:, half:]), dim=2)
    return kept + mask * (generated - kept)


def mask_loss(mask: torch.Tensor, mean_wt: float, smooth_wt: float) -> torch.Tensor:
    """Keeps masks (..., H, W) small and smooth: mean_wt times their mean and smooth_wt times their
    total variation, the mean step from a pixel to the next one down and right (a scalar).
    """
    mask = mask.float()
    variation = mask.diff(dim=-2).abs().mean() + mask.diff(dim=-1).abs().mean()
    return mean_wt * mask.mean() + smooth_wt * variation
