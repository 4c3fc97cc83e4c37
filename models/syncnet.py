"""The lip-sync expert `SyncNet_color` and the losses it gives (paper sections 3.1 and 3.2)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from models.conv import Conv2d, audio_layers, residual, scaled


class SyncNet_color(nn.Module):  # noqa: N801  (released name)
    """Embeds five lower face halves and a mel window so that what belongs together points the same
    way.

    width: channels of every layer times this, at least 8. 1 is the released model (16,435,072
    parameters).
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c32, c64, c128, c256, c512 = (scaled(c, width) for c in (32, 64, 128, 256, 512))
        layers: list[nn.Module] = [Conv2d(15, c32, 7, 1, 3)]  # 48 x 96
        for cin, cout, stride, residuals in (
            (c32, c64, (1, 2), 2),
            (c64, c128, 2, 3),
            (c128, c256, 2, 2),
            (c256, c512, 2, 2),
        ):
            padding = 1
            kernel = 5 if stride == (1, 2) else 3
            layers += [
                Conv2d(cin, cout, kernel, stride, padding),
                *(residual(cout) for _ in range(residuals)),
            ]
        self.face_encoder = nn.Sequential(
            *layers,
            Conv2d(c512, c512, 3, 2, 1),
            Conv2d(c512, c512, 3, 1, 0),
            Conv2d(c512, c512, 1, 1, 0),
        )
        self.audio_encoder = audio_layers(width, residuals_at_256=2)

    def forward(
        self, audio_sequences: torch.Tensor, face_sequences: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mel windows (B, 1, 80, 16), faces (B, 15, 48, 96) -> (audio_embedding, face_embedding),
        each (B, 512), length 1.
        """
        face = self.face_encoder(face_sequences).flatten(1)  # (B, 512)
        audio = self.audio_encoder(audio_sequences).flatten(1)  # (B, 512)
        return F.normalize(audio, p=2, dim=1), F.normalize(face, p=2, dim=1)


def cosine_loss(audio: torch.Tensor, face: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of the cosine similarity against y: 1 in sync, 0 not. audio, face (B,
    D); y (B, 1).

    The embeddings end in a ReLU, so their cosine lies in 0..1 and serves as a probability.
    """
    with torch.autocast(audio.device.type, enabled=False):
        similarity = F.cosine_similarity(audio.float(), face.float())
        return F.binary_cross_entropy(
            similarity.clamp(0, 1).unsqueeze(1), y.float()
        )  # rounding passes 1 by 1e-7


def stack_window(frames: torch.Tensor) -> torch.Tensor:
    """Whole frames (B, 3, T, H, W) -> lower halves stacked on the channel axis frame by frame (B,
    3*T, H/2, W).
    """
    lower = frames[:, :, :, frames.shape[3] // 2 :]
    return torch.cat([lower[:, :, i] for i in range(lower.shape[2])], dim=1)


def get_sync_loss(expert: nn.Module, mel: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """How far generated frames (B, 3, 5, H, W) are from the speech mel (B, 1, 80, 16), by the
    frozen expert (a scalar).
    """
    audio, face = expert(mel, stack_window(frames))
    return cosine_loss(audio, face, torch.ones(len(mel), 1, device=mel.device))


def sync_accuracy(audio: torch.Tensor, face: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Share of pairs on the right side of cosine 0.5 (a scalar). audio, face (B, D); y (B, 1)."""
    return ((F.cosine_similarity(audio, face) > 0.5) == (y.flatten() > 0.5)).float().mean()


def generator_sync_loss(
    expert: nn.Module, mel: torch.Tensor, frames: torch.Tensor, weight: float
) -> torch.Tensor:
    """get_sync_loss, without a graph while its weight is 0: it is always measured, and costs a
    backward pass only where it teaches.
    """
    with torch.set_grad_enabled(weight > 0):
        return get_sync_loss(expert, mel, frames)
