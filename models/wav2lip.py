"""The generator `Wav2Lip` and the visual quality discriminator `Wav2Lip_disc_qual` (paper sections
3.3 and 3.4).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from models.conv import Conv2d, Conv2dTranspose, audio_layers, nonorm_Conv2d, residual, scaled


def fold_time(audio: torch.Tensor, face: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, 1, 80, 16) and (B, C, T, H, W) -> (T*B, 1, 80, 16) and (T*B, C, H, W): all clips'
    frame 0 first.
    """
    return audio.transpose(0, 1).flatten(0, 1), face.permute(2, 0, 1, 3, 4).flatten(0, 1)


def unfold_time(frames: torch.Tensor, batch: int) -> torch.Tensor:
    """(T*B, C, H, W) -> (B, C, T, H, W): the inverse of fold_time."""
    return frames.unflatten(0, (-1, batch)).permute(1, 2, 0, 3, 4)


class Wav2Lip(nn.Module):
    """Redraws the lower half of a face to a mel window.

    width: channels of every layer times this, at least 8. 1 is the released model (36,298,035
    parameters).
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c = {n: scaled(n, width) for n in (16, 32, 64, 128, 256, 384, 512)}

        def down(cin: int, cout: int, residuals: int) -> nn.Sequential:
            return nn.Sequential(
                Conv2d(cin, cout, 3, 2, 1), *(residual(cout) for _ in range(residuals))
            )

        def up(cin: int, cout: int, residuals: int) -> nn.Sequential:
            return nn.Sequential(
                Conv2dTranspose(cin, cout, 3, 2, 1, 1), *(residual(cout) for _ in range(residuals))
            )

        self.face_encoder_blocks = nn.ModuleList(
            [
                nn.Sequential(Conv2d(6, c[16], 7, 1, 3)),  # 96 x 96
                down(c[16], c[32], 2),  # 48
                down(c[32], c[64], 3),  # 24
                down(c[64], c[128], 2),  # 12
                down(c[128], c[256], 2),  # 6
                down(c[256], c[512], 1),  # 3
                nn.Sequential(
                    Conv2d(c[512], c[512], 3, 1, 0), Conv2d(c[512], c[512], 1, 1, 0)
                ),  # 1
            ]
        )
        self.audio_encoder = audio_layers(width, residuals_at_256=1)
        # each block's input is the one before it with the encoder's feature of that size behind it
        self.face_decoder_blocks = nn.ModuleList(
            [
                nn.Sequential(Conv2d(c[512], c[512], 1, 1, 0)),  # 1
                nn.Sequential(Conv2dTranspose(2 * c[512], c[512], 3, 1, 0), residual(c[512])),  # 3
                up(2 * c[512], c[512], 2),  # 6
                up(c[512] + c[256], c[384], 2),  # 12
                up(c[384] + c[128], c[256], 2),  # 24
                up(c[256] + c[64], c[128], 2),  # 48
                up(c[128] + c[32], c[64], 2),  # 96
            ]
        )
        self.output_block = nn.Sequential(
            Conv2d(c[64] + c[16], c[32], 3, 1, 1), nn.Conv2d(c[32], 3, 1), nn.Sigmoid()
        )

    def forward(self, audio_sequences: torch.Tensor, face_sequences: torch.Tensor) -> torch.Tensor:
        """Mel windows (B, 1, 80, 16) and faces (B, 6, 96, 96) -> frames (B, 3, 96, 96), BGR in
        0..1.

        Face channels: 0-2 the target frame with its lower half zeroed, 3-5 the reference frame.
        With a time axis, (B, T, 1, 80, 16) and (B, 6, T, 96, 96) -> (B, 3, T, 96, 96).
        """
        batch = face_sequences.shape[0]
        sequence = face_sequences.dim() == 5
        if sequence:
            audio_sequences, face_sequences = fold_time(audio_sequences, face_sequences)
        features = []
        x = face_sequences
        for block in self.face_encoder_blocks:
            x = block(x)
            features.append(x)
        x = self.audio_encoder(audio_sequences)  # (T*B, 512, 1, 1)
        for block in self.face_decoder_blocks:
            x = torch.cat((block(x), features.pop()), dim=1)
        frames = self.output_block(x)  # (T*B, 3, 96, 96)
        return unfold_time(frames, batch) if sequence else frames


class Wav2Lip_disc_qual(nn.Module):  # noqa: N801  (released name)
    """Tells real lower face halves from generated ones (paper section 3.4)."""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c32, c64, c128, c256, c512 = (scaled(c, width) for c in (32, 64, 128, 256, 512))
        nn_ = nonorm_Conv2d
        self.face_encoder_blocks = nn.ModuleList(
            [
                nn.Sequential(nn_(3, c32, 7, 1, 3)),  # 48 x 96
                nn.Sequential(nn_(c32, c64, 5, (1, 2), 2), nn_(c64, c64, 5, 1, 2)),  # 48 x 48
                nn.Sequential(nn_(c64, c128, 5, 2, 2), nn_(c128, c128, 5, 1, 2)),  # 24
                nn.Sequential(nn_(c128, c256, 5, 2, 2), nn_(c256, c256, 5, 1, 2)),  # 12
                nn.Sequential(nn_(c256, c512, 3, 2, 1), nn_(c512, c512, 3, 1, 1)),  # 6
                nn.Sequential(nn_(c512, c512, 3, 2, 1), nn_(c512, c512, 3, 1, 1)),  # 3
                nn.Sequential(nn_(c512, c512, 3, 1, 0), nn_(c512, c512, 1, 1, 0)),  # 1
            ]
        )
        self.binary_pred = nn.Sequential(nn.Conv2d(c512, 1, 1), nn.Sigmoid())

    def forward(self, face_sequences: torch.Tensor) -> torch.Tensor:
        """Whole frames (B, 3, T, 96, 96) -> probability of being real (T*B, 1), frame by frame."""
        x = face_sequences[:, :, :, face_sequences.shape[3] // 2 :]  # the lower half
        x = x.permute(2, 0, 1, 3, 4).flatten(0, 1)  # (T*B, 3, 48, 96)
        for block in self.face_encoder_blocks:
            x = block(x)
        return self.binary_pred(x).flatten(1)

    def perceptual_forward(self, false_face_sequences: torch.Tensor) -> torch.Tensor:
        """The generator's adversarial loss: binary cross entropy of `forward` against ones."""
        return probability_loss(self(false_face_sequences), 1.0)


def probability_loss(probability: torch.Tensor, target: float) -> torch.Tensor:
    """Binary cross entropy of probabilities against one constant; float32 even inside autocast,
    which forbids it.
    """
    with torch.autocast(probability.device.type, enabled=False):
        probability = probability.float()
        return F.binary_cross_entropy(probability, torch.full_like(probability, target))
