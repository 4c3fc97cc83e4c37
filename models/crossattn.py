"""The second generator family: cross-attention from the face to the speech, and a learned mask."""

from __future__ import annotations

import torch
from torch import nn

from errors import InputError
from models.audio_encoder import TOKENS, AudioEncoder
from models.face_compositor import FaceCompositor, compose
from models.face_encoder import FaceEncoder
from models.fusion_module import FusionModule, token_width
from models.lip_generator import LipGenerator
from models.wav2lip import fold_time, unfold_time

DEEPEST = 32  # times that the smallest feature is smaller than the picture


class CrossAttention(nn.Module):
    """Redraws the mouth to the speech: the face's two smallest features ask the speech tokens, a
    U-Net draws the face, a mask keeps all but the mouth.

    width: channels of every layer times this. img_size: side of the picture in pixels, any
    multiple of 32 from 64 on; training takes an expert's sizes. The weights are the same for every
    size. audio_encoder, face_encoder: KINDS of the modules of these names.
    """

    name = "crossattn"  # create_model's
    key = "face_compositor.mask.1.weight"
    fits_any_size = True

    def __init__(
        self,
        width: float = 1.0,
        img_size: int = 96,
        audio_encoder: str = "conv1d_lstm",
        face_encoder: str = "resnet50",
    ) -> None:
        super().__init__()
        if img_size < 2 * DEEPEST or img_size % DEEPEST:
            raise InputError(f"crossattn has no img_size {img_size}: a multiple of 32, from 64 on")
        self.width, self.img_size = width, img_size
        self.options = {"audio_encoder": audio_encoder, "face_encoder": face_encoder}
        dim = token_width(256, width)
        self.audio_encoder = AudioEncoder(audio_encoder, dim)
        self.face_encoder = FaceEncoder(face_encoder, width)
        *larger, sixteenth, smallest = self.face_encoder.channels
        self.fusion = nn.ModuleList(
            FusionModule(channels, img_size // factor, TOKENS, dim)
            for channels, factor in ((smallest, DEEPEST), (sixteenth, DEEPEST // 2))
        )
        self.lip_generator = LipGenerator((dim, dim, *reversed(larger), 6), width)
        self.face_compositor = FaceCompositor(self.lip_generator.channels, img_size)

    def forward(
        self, audio_sequences: torch.Tensor, face_sequences: torch.Tensor, masks: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """As Wav2Lip.forward: (B, 1, 80, 16) and (B, 6, H, W) -> frames (B, 3, H, W), or with a
        time axis (B, T, 1, 80, 16) and (B, 6, T, H, W) -> (B, 3, T, H, W).

        masks: also the masks, (B, 1, H, W) or (B, 1, T, H, W), for mask_loss. Without a time axis
        each frame is alone; with it the speech encoder hears a clip's frames in their order.
        """
        batch, sequence = len(face_sequences), face_sequences.dim() == 5
        windows, faces = audio_sequences, face_sequences  # (B, 1, 80, 16) is T = 1
        if sequence:
            windows = audio_sequences.squeeze(2)  # (B, T, 80, 16)
            _, faces = fold_time(audio_sequences, face_sequences)
        speech = self.audio_encoder(windows)  # (B, T, tokens, dim)
        speech = speech.transpose(0, 1).flatten(0, 1)  # (T*B, tokens, dim), as fold_time
        generated, mask = self._draw(speech, self.encode_face(faces))
        made = compose(faces, generated, mask), mask
        if sequence:
            made = tuple(unfold_time(x, batch) for x in made)
        return made if masks else made[0]

    def encode_face(self, faces: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Faces (B, 6, H, W) -> themselves and their features, the largest first: all that `draw`
        and `decode` need of them, so a still face is encoded once.
        """
        return faces, *self.face_encoder(faces)

    def draw(
        self, audio: torch.Tensor, face_features: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Mel windows (B, 1, 80, 16) and `encode_face`'s features -> the generated face (B, 3, H,
        W) and the mask (B, 1, H, W) to paste it with; where the mask is 0 the face means nothing.
        """
        return self._draw(self.audio_encoder(audio).flatten(0, 1), face_features)

    def decode(self, audio: torch.Tensor, face_features: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """As `draw`, blended: frames (B, 3, H, W)."""
        return compose(face_features[0], *self.draw(audio, face_features))

    def _draw(
        self, speech: torch.Tensor, face_features: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        *larger, sixteenth, smallest = face_features
        fused = [
            fuse(feature, speech)
            for fuse, feature in zip(self.fusion, (smallest, sixteenth), strict=True)
        ]
        feature, generated = self.lip_generator((*fused, *reversed(larger)))
        return generated, self.face_compositor(feature)
