"""How far pictures are from others: PSNR and SSIM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

PSNR_LIMIT = 100.0  # dB, for equal pictures: infinity has no mean


def psnr(truth: torch.Tensor, generated: torch.Tensor) -> list[float]:
    """Peak signal-to-noise ratio in dB of each of N pictures (N, 3, H, W) in 0..255; at most
    PSNR_LIMIT.
    """
    from torchmetrics.functional.image import peak_signal_noise_ratio

    values = peak_signal_noise_ratio(
        generated, truth, data_range=255.0, reduction="none", dim=(1, 2, 3)
    )
    return values.clamp(max=PSNR_LIMIT).tolist()


def ssim(truth: torch.Tensor, generated: torch.Tensor) -> list[float]:
    """Structural similarity (Wang et al., 2004: Gaussian window of 11, sigma 1.5; the mean over the
    channels) of each of N pictures (N, 3, H, W) in 0..255.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    values = structural_similarity_index_measure(
        generated, truth, data_range=255.0, reduction="none"
    )
    return values.reshape(-1).tolist()


def picture_tensor(frames: np.ndarray, device: torch.device) -> torch.Tensor:
    """uint8 BGR (N, H, W, 3) -> float RGB (N, 3, H, W) in 0..255."""
    import torch

    rgb = np.ascontiguousarray(frames[..., ::-1])
    return torch.from_numpy(rgb).to(device).permute(0, 3, 1, 2).float()
