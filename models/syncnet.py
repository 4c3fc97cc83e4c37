"""The lip-sync expert `SyncNet_color` and the losses it gives (paper sections 3.1 and 3.2)."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from models.conv import Conv2d, audio_layers, encode_larger, encoder_stages, residual, scaled


class SyncNet_color(nn.Module):  # noqa: N801  (released name)
    """Embeds five lower face halves and a mel window so that what belongs together points the same
    way.

    width: channels of every layer times this, at least 8. img_size: side of the whole picture in
    pixels. Width 1 and img_size 96 are the released model; larger ones contain it key for key, and
    with its weights give its embeddings until the added stages have learned something.

    img_size     96          192         288         384
    parameters   16,435,072  16,453,872  16,462,064  16,470,352
    a window     2.42        2.98        3.71        5.14 GFLOP (torch.utils.flop_counter)
    """

    key = "face_encoder.0.conv_block.0.weight"  # no other model has it

    def __init__(self, width: float = 1.0, img_size: int = 96) -> None:
        super().__init__()
        self.width, self.img_size = width, img_size
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
        self.face_encoder_stages = encoder_stages(Conv2d, 15, c32, width, img_size)

    def embed_face(self, face_sequences: torch.Tensor) -> torch.Tensor:
        """Lower halves (B, 15, H/2, W), H = W = img_size -> (B, 512) of length 1."""
        first, *deeper = self.face_encoder
        face = encode_larger(self.face_encoder_stages, first, face_sequences)[-1]
        for layer in deeper:
            face = layer(face)
        return F.normalize(face.flatten(1), p=2, dim=1)

    def embed_audio(self, audio_sequences: torch.Tensor) -> torch.Tensor:
        """Mel windows (B, 1, 80, 16) -> (B, 512) of length 1."""
        return F.normalize(self.audio_encoder(audio_sequences).flatten(1), p=2, dim=1)

    def forward(
        self, audio_sequences: torch.Tensor, face_sequences: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(audio_embedding, face_embedding): see embed_audio and embed_face."""
        return self.embed_audio(audio_sequences), self.embed_face(face_sequences)


def cosine_loss(audio: torch.Tensor, face: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Binary cross entropy of the cosine similarity against y: 1 in sync, 0 not. audio, face (B,
    D); y (B, 1).

    The embeddings end in a ReLU, so their cosine lies in 0..1 and serves as a probability.
    """
    with torch.autocast(audio.device.type, enabled=False):
        similarity = F.cosine_similarity(audio.float(), face.float())
        # rounding passes 1 by 1e-7; a NaN would end the process inside the loss, on GPUs without a
        # word, so it goes around: 0 * NaN makes the result NaN
        probability = similarity.nan_to_num().clamp(0, 1).unsqueeze(1)
        return F.binary_cross_entropy(probability, y.float()) + 0 * similarity.sum()


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


def contrastive_loss(
    audio: torch.Tensor,
    face: torch.Tensor,
    group: torch.Tensor,
    temperature: float = 0.07,
    bce_weight: float = 1.0,
    start: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Every window's sound against the faces of the whole batch, and the other way round.

    audio, face (N, D) of length 1, row i of both in sync; group (N,) the clip of each window; start
    (N,) its first frame, without which one window met twice in a batch counts as two different
    ones. Scalars: loss = nce + bce_weight * bce; nce, InfoNCE in both directions (van den Oord et
    al., 2018), for which the other windows of a clip are the hard negatives and other clips the
    easy ones; bce, the released loss over own pairs and the wrong pairs within a clip, half and
    half: it keeps the cosine a probability, with which generators are judged; accuracy, of the same
    pairs at 0.5. Of several processes, each has its own batch.
    """
    with torch.autocast(audio.device.type, enabled=False):
        cosine = face.float() @ audio.float().T  # (N, N)
        own = torch.eye(len(cosine), dtype=torch.bool, device=cosine.device)
        same_clip = (group[:, None] == group) & ~own
        twice = torch.zeros_like(own)  # the same window, a clip being in the batch twice
        if start is not None:
            twice = same_clip & (start[:, None] == start)
        logits = (cosine / temperature).masked_fill(twice, -torch.inf)
        target = torch.arange(len(cosine), device=cosine.device)
        nce = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        wrong = (same_clip & ~twice).float()
        weight = own / (2 * len(own)) + wrong / (2 * wrong.sum().clamp(min=1))
        probability = cosine.nan_to_num().clamp(0, 1)  # what is not a number shows in nce
        bce = F.binary_cross_entropy(probability, own.float(), weight, reduction="sum")
        accuracy = (((cosine > 0.5) == own) * weight).sum()
    return {"loss": nce + bce_weight * bce, "nce": nce, "bce": bce, "accuracy": accuracy}
