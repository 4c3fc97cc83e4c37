"""Where the second family's picture listens to the speech: cross-attention."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

HEADS = 4
PERIOD = 100.0  # longest wavelength of a position over 2 pi: grids and clips have few places


def token_width(channels: int, width: float) -> int:
    """`channels` times `width`, a multiple of 8: each head and each axis has an even share."""
    return 8 * max(1, round(channels * width / 8))


def sinusoids(positions: torch.Tensor, dim: int) -> torch.Tensor:
    """Encodings of positions (N,), which need not be whole -> (N, dim), dim even: sines and
    cosines of geometric wavelengths (Vaswani et al. 2017, section 3.5).
    """
    exponents = torch.arange(dim // 2, device=positions.device) / (dim // 2)
    angles = positions[:, None].float() * PERIOD**-exponents  # (N, dim/2)
    return torch.cat((angles.sin(), angles.cos()), dim=1)


def grid_sinusoids(side: int, dim: int) -> torch.Tensor:
    """Of the places of a square, row by row: (side * side, dim), half the row's, half the
    column's.
    """
    line = sinusoids(torch.arange(side), dim // 2)
    return torch.cat((line.repeat_interleave(side, 0), line.repeat(side, 1)), dim=1)


class AttentionBlock(nn.Module):
    """Attention of some tokens to a context, then two linear layers; normalised before each."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.query_norm, self.context_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query, self.key_value = nn.Linear(dim, dim), nn.Linear(dim, 2 * dim)
        self.joined = nn.Linear(dim, dim)
        self.mlp = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim)
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):  # torch's own start is three times weaker
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    def forward(self, tokens: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """tokens (B, N, dim), context (B, M, dim) -> (B, N, dim)."""
        query = self.query(self.query_norm(tokens))
        key, value = self.key_value(self.context_norm(context)).chunk(2, dim=-1)
        heads = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (query, key, value))
        heard = F.scaled_dot_product_attention(*heads)  # (B, heads, N, dim / heads)
        tokens = tokens + self.joined(heard.transpose(1, 2).flatten(2))
        return tokens + self.mlp(tokens)


class FusionModule(nn.Module):
    """One scale: every place of the picture's feature asks the speech tokens.

    side: of the square feature; tokens: of the speech that a frame hears.
    """

    def __init__(self, channels: int, side: int, tokens: int, dim: int, layers: int = 2) -> None:
        super().__init__()
        self.enter = nn.Conv2d(channels, dim, 1)
        self.blocks = nn.ModuleList(AttentionBlock(dim) for _ in range(layers))
        places, times = grid_sinusoids(side, dim), sinusoids(torch.arange(tokens), dim)
        self.register_buffer("places", places, persistent=False)  # other sizes share the weights
        self.register_buffer("times", times, persistent=False)

    def forward(self, feature: torch.Tensor, speech: torch.Tensor) -> torch.Tensor:
        """feature (B, C, h, w), speech (B, M, dim) -> (B, dim, h, w)."""
        x = self.enter(feature)
        tokens, speech = x.flatten(2).transpose(1, 2) + self.places, speech + self.times
        for block in self.blocks:
            tokens = block(tokens, speech)
        return tokens.transpose(1, 2).unflatten(2, x.shape[2:])
