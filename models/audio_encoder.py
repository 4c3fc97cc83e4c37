"""Speech of the second family: mel windows -> tokens that know their neighbours in time."""

from __future__ import annotations

import torch
from torch import nn

from errors import InputError
from models.conv import Conv2d
from models.fusion_module import AttentionBlock, sinusoids

KINDS = ("conv1d_lstm", "conv1d_transformer")
MELS, ROWS = 80, 16  # of a mel window
TOKENS = ROWS // 2  # of a window: one for every two mel rows, 25 ms
ROWS_A_FRAME = 80 / 25  # mel rows a second over frames a second: how far windows lie apart
ALONE = 0.5  # share of the training clips that are heard frame by frame


class AudioEncoder(nn.Module):
    """1-D convolutions over the mel rows of each frame's window, then a bidirectional LSTM or a
    Transformer encoder over the tokens of all frames of a clip, in their order.

    Training shows a clip's five frames together; inference calls with single ones, a sequence of
    length one, whose tokens have no neighbours. So that the model knows both, ALONE of the training
    clips, drawn anew each time, are encoded as inference does it. In eval mode a clip is heard as
    one: its scores are those of five frames together, not of inference.
    """

    def __init__(self, kind: str, dim: int) -> None:
        super().__init__()
        if kind not in KINDS:
            raise InputError(f"unknown audio_encoder {kind!r}; choose one of {', '.join(KINDS)}")
        # 1-D convolutions, the mel bands their channels, written as 2-D ones of height 1 to share
        # the block. Its batch norm takes away what all speech has in common: without it windows
        # differ too little for the picture to ask
        kernel, padding = (1, 3), (0, 1)
        self.convs = nn.Sequential(
            Conv2d(MELS, dim, kernel, 1, padding),
            Conv2d(dim, dim, kernel, (1, 2), padding),
            Conv2d(dim, dim, kernel, 1, padding, residual=True),
        )
        lstm = kind == "conv1d_lstm"
        self.sequence = BidirectionalLSTM(dim) if lstm else TransformerEncoder(dim)

    def forward(self, mels: torch.Tensor) -> torch.Tensor:
        """Mel windows of clips (B, T, 80, 16) -> tokens (B, T, TOKENS, dim); clips do not mix."""
        clips, frames = mels.shape[:2]
        tokens = self.convs(mels.flatten(0, 1)[:, :, None])  # (B*T, dim, 1, TOKENS)
        tokens = tokens.squeeze(2).transpose(1, 2)  # (B*T, TOKENS, dim)
        if frames == 1:
            return self.sequence(tokens).unflatten(0, (-1, 1))
        together = self.sequence(tokens.unflatten(0, (-1, frames)).flatten(1, 2))
        together = together.unflatten(1, (frames, TOKENS))  # (B, T, TOKENS, dim)
        if not self.training:
            return together
        alone = self.sequence(tokens).unflatten(0, (-1, frames))
        chosen = torch.rand(clips, 1, 1, 1, device=mels.device) < ALONE
        return torch.where(chosen, alone, together)


class BidirectionalLSTM(nn.Module):
    """(B, N, dim) -> the same shape, each token with what came before it and what comes after."""

    def __init__(self, dim: int, layers: int = 2) -> None:
        super().__init__()
        self.lstm = nn.LSTM(dim, dim // 2, layers, batch_first=True, bidirectional=True)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return tokens + self.lstm(tokens)[0]


class TransformerEncoder(nn.Module):
    """(B, N, dim) -> the same shape; N tokens of N / TOKENS windows. A token's position is the time
    that it hears, so where windows overlap, tokens of two windows share one.
    """

    def __init__(self, dim: int, layers: int = 2) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(AttentionBlock(dim) for _ in range(layers))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        count, dim = tokens.shape[1:]
        windows = torch.arange(count // TOKENS, device=tokens.device)
        rows = 2 * torch.arange(TOKENS, device=tokens.device)
        times = (ROWS_A_FRAME * windows[:, None] + rows).flatten()  # in mel rows
        tokens = tokens + sinusoids(times, dim).to(tokens.dtype)
        for block in self.blocks:
            tokens = block(tokens, tokens)
        return tokens
