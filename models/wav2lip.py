"""The generator `Wav2Lip` and the visual quality discriminator `Wav2Lip_disc_qual` (paper sections
3.3 and 3.4).
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from models.conv import (
    Conv2d,
    Conv2dTranspose,
    audio_layers,
    decoder_stages,
    encode_larger,
    encoder_stages,
    nonorm_Conv2d,
    residual,
    scaled,
)


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

    width: channels of every layer times this, at least 8. img_size: side of the picture in pixels.
    Width 1 and img_size 96 are the released model, and every larger one contains it key for key:
    the released layers draw the picture at 96, and added stages at the shallow ends of encoder and
    decoder draw the detail of each larger size on top of that.

    img_size     96          192         288         384
    parameters   36,298,035  36,363,238  36,408,294  36,419,225
    a frame      7.93        11.30       15.76       24.10 GFLOP (torch.utils.flop_counter)
    in training  42          98          167         322 MB a frame kept for the backward pass
    """

    key = "output_block.1.weight"  # no other model has it

    def __init__(self, width: float = 1.0, img_size: int = 96) -> None:
        super().__init__()
        self.width, self.img_size = width, img_size
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
        self.face_encoder_stages = encoder_stages(Conv2d, 6, c[16], width, img_size)
        self.face_decoder_stages = decoder_stages(c[64] + c[16], c[32], c[16], img_size)

    def forward(self, audio_sequences: torch.Tensor, face_sequences: torch.Tensor) -> torch.Tensor:
        """Mel windows (B, 1, 80, 16) and faces (B, 6, H, W) -> frames (B, 3, H, W), BGR in 0..1;
        H = W = img_size.

        Face channels: 0-2 the target frame with its lower half zeroed, 3-5 the reference frame.
        With a time axis, (B, T, 1, 80, 16) and (B, 6, T, H, W) -> (B, 3, T, H, W).
        """
        batch = face_sequences.shape[0]
        sequence = face_sequences.dim() == 5
        if sequence:
            audio_sequences, face_sequences = fold_time(audio_sequences, face_sequences)
        frames = self.decode(audio_sequences, self.encode_face(face_sequences))
        return unfold_time(frames, batch) if sequence else frames

    def encode_face(self, faces: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Faces (B, 6, H, W) -> features (B, C, h, w), from H x W down to 1 x 1: all that `decode`
        needs of them, so a still face is encoded once.
        """
        first, *deeper = self.face_encoder_blocks
        features = encode_larger(self.face_encoder_stages, first, faces)
        for block in deeper:
            features.append(block(features[-1]))
        return tuple(features)

    def decode(self, audio: torch.Tensor, face_features: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Mel windows (B, 1, 80, 16) and `encode_face`'s features -> frames (B, 3, H, W)."""
        features = list(face_features)
        x = self.audio_encoder(audio)  # (B, 512, 1, 1)
        for block in self.face_decoder_blocks:
            x = torch.cat((block(x), features.pop()), dim=1)
        hidden, picture, sigmoid = self.output_block
        frames = picture(hidden(x))  # (B, 3, 96, 96)
        for stage in self.face_decoder_stages.values():
            x, frames = stage(x, features.pop(), frames)
        return sigmoid(frames)  # (B, 3, H, W)


class Wav2Lip_disc_qual(nn.Module):  # noqa: N801  (released name)
    """Tells real lower face halves from generated ones (paper section 3.4).

    width: channels of every layer times this, at least 8. img_size: side of the whole picture in
    pixels. Width 1 and img_size 96 are the released model; larger ones contain it key for key.

    img_size     96          192         288         384
    parameters   14,113,793  14,123,121  14,131,313  14,130,129
    a frame      2.51        2.73        3.02        3.50 GFLOP (torch.utils.flop_counter)
    """

    key = "binary_pred.0.weight"

    def __init__(self, width: float = 1.0, img_size: int = 96) -> None:
        super().__init__()
        self.width, self.img_size = width, img_size
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
        self.face_encoder_stages = encoder_stages(nn_, 3, c32, width, img_size)
        self._init_weights()

    def forward(self, face_sequences: torch.Tensor, logits: bool = False) -> torch.Tensor:
        """Whole frames (B, 3, T, H, W) -> probability of being real (T*B, 1), frame by frame;
        H = W = img_size. Float32 even inside autocast: in bfloat16 it is 1 from 0.998 on, where the
        loss no longer has a gradient. logits: before the sigmoid.
        """
        x = face_sequences[:, :, :, face_sequences.shape[3] // 2 :]  # the lower half
        x = x.permute(2, 0, 1, 3, 4).flatten(0, 1)  # (T*B, 3, H/2, W)
        first, *deeper = self.face_encoder_blocks
        x = encode_larger(self.face_encoder_stages, first, x)[-1]  # (T*B, 32, 48, 96)
        for block in deeper:
            x = block(x)
        with torch.autocast(x.device.type, enabled=False):
            score, sigmoid = self.binary_pred
            real = score(x.to(score.weight.dtype)).flatten(1)
            return real if logits else sigmoid(real)

    @torch.no_grad()
    def _init_weights(self) -> None:
        """Begin by He et al. 2015. By PyTorch's default, 14 layers without a norm leave 1e-6 of
        what tells two pictures apart: nothing to learn from for a thousand steps, and in bfloat16
        nothing at all.
        """
        for module in self.face_encoder_blocks.modules():  # larger ones' stages pass on as they are
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, 0.01, nonlinearity="leaky_relu")
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.binary_pred[0].weight, std=0.01)  # sure of nothing yet
        nn.init.zeros_(self.binary_pred[0].bias)

    def perceptual_forward(self, false_face_sequences: torch.Tensor) -> torch.Tensor:
        """The generator's adversarial loss: binary cross entropy of `forward` against ones."""
        return adversarial_loss(self(false_face_sequences, logits=True), 1.0)


def adversarial_loss(logits: torch.Tensor, target: float) -> torch.Tensor:
    """Binary cross entropy of a discriminator's logits against one constant.

    The released loss, of probabilities, has no gradient once they are 1 to the last bit: a
    discriminator that has called everything real calls everything real for ever.
    """
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def mouth_l1(frames: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """L1 where the mouth is: the lower half's middle. Frames (B, 3, T, H, W)."""
    height, width = frames.shape[-2:]
    mouth = (..., slice(height * 5 // 8, height * 15 // 16), slice(width // 4, width * 3 // 4))
    return F.l1_loss(frames[mouth].float(), truth[mouth])
