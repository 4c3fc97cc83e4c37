"""Generated frames against true ones: the sums behind evaluation/quality.py.

Every metric takes a Batch and gives one number a frame (or window) for each of its names; a new one
is made for every video, since some look back at the frames before.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from media.difference import picture_tensor, psnr, ssim

if TYPE_CHECKING:
    import torch

    from evaluation.identity import FaceRecognizer

MIN_REGION = 12  # px: SSIM's window is 11
STEPS = 5  # frames in a window of the expert


@dataclass(frozen=True)
class Batch:
    """Consecutive frames of both videos: uint8 BGR (N, H, W, 3) each, the true face's box
    (x1, y1, x2, y2) or None in each, and the number of the first frame.
    """

    truth: np.ndarray
    generated: np.ndarray
    boxes: Sequence[tuple[int, int, int, int] | None]
    first: int


Scores = dict[str, list[float]]


class Picture:
    """psnr (dB), ssim and, with its network, lpips of whole frames."""

    def __init__(self, device: torch.device, lpips: torch.nn.Module | None = None) -> None:
        self.device, self.lpips = device, lpips

    def __call__(self, batch: Batch) -> Scores:
        import torch

        with torch.inference_mode():
            truth, generated = (
                picture_tensor(x, self.device) for x in (batch.truth, batch.generated)
            )
            scores = {"psnr": psnr(truth, generated), "ssim": ssim(truth, generated)}
            if self.lpips is not None:
                distance = self.lpips(truth / 127.5 - 1, generated / 127.5 - 1)
                scores["lpips"] = distance.flatten().tolist()
        return scores


def mouths(batch: Batch) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(true, generated) lower halves of the face boxes, uint8 BGR (h, w, 3), of the frames that
    have one of MIN_REGION px or more.
    """
    for truth, generated, box in zip(batch.truth, batch.generated, batch.boxes, strict=True):
        if box is None:
            continue
        x1, y1, x2, y2 = box
        rows, columns = slice((y1 + y2) // 2, y2), slice(x1, x2)
        if min(y2 - rows.start, x2 - x1) >= MIN_REGION:
            yield truth[rows, columns], generated[rows, columns]


class Mouth:
    """psnr_mouth, ssim_mouth, l1_mouth (grey levels) of the lower half of the face box."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __call__(self, batch: Batch) -> Scores:
        import torch

        scores: Scores = {"psnr_mouth": [], "ssim_mouth": [], "l1_mouth": []}
        for regions in mouths(batch):
            with torch.inference_mode():
                a, b = (picture_tensor(region[None], self.device) for region in regions)
                scores["psnr_mouth"] += psnr(a, b)
                scores["ssim_mouth"] += ssim(a, b)
                scores["l1_mouth"].append(float((a - b).abs().mean()))
        return scores


class Temporal:
    """temporal: how much the error changes from frame to frame, |(g' - g) - (y' - y)| in grey
    levels, a mean over the face box. An error that stays is not seen; flicker is.
    """

    def __init__(self) -> None:
        self._error: np.ndarray | None = None  # of the frame before

    def __call__(self, batch: Batch) -> Scores:
        values = []
        for truth, generated, box in zip(batch.truth, batch.generated, batch.boxes, strict=True):
            error = generated.astype(np.int16) - truth
            if self._error is not None and box is not None:
                x1, y1, x2, y2 = box
                change = error[y1:y2, x1:x2] - self._error[y1:y2, x1:x2]
                values.append(float(np.abs(change).mean()))
            self._error = error
        return {"temporal": values}


class Identity:
    """identity: cosine of the true and the generated face's embeddings, every `every`-th frame."""

    def __init__(self, recognizer: FaceRecognizer, every: int) -> None:
        self.recognizer, self.every = recognizer, every

    def __call__(self, batch: Batch) -> Scores:
        frames = zip(batch.truth, batch.generated, batch.boxes, strict=True)
        return {
            "identity": [
                self.recognizer.similarity(truth, generated, box)
                for number, (truth, generated, box) in enumerate(frames, batch.first)
                if box is not None and number % self.every == 0
            ]
        }


class SyncDistance:
    """lsd: 1 - cosine of a SyncNet_color's embeddings of five generated frames and their sound,
    0..1. expert: the network; mel (T, 80): of the generated video's sound; 25 fps.
    """

    def __init__(self, expert: torch.nn.Module, mel: np.ndarray) -> None:
        self.expert, self.mel = expert, mel
        self._window: deque[np.ndarray] = deque(maxlen=STEPS)

    def __call__(self, batch: Batch) -> Scores:
        import torch

        from audio import ShortWindow, crop_audio_window
        from face_detection.track import crop_face

        size = self.expert.img_size
        faces, mels = [], []
        for number, (frame, box) in enumerate(
            zip(batch.generated, batch.boxes, strict=True), batch.first
        ):
            if box is None:
                self._window.clear()
                continue
            self._window.append(crop_face(frame, box, size)[size // 2 :])
            if len(self._window) < STEPS:
                continue
            try:
                mel = crop_audio_window(self.mel, number - STEPS + 1)  # (16, 80)
            except ShortWindow:  # the sound ends before the picture does
                continue
            mels.append(mel.T[None])
            faces.append(np.concatenate([half.transpose(2, 0, 1) for half in self._window]))
        if not faces:
            return {"lsd": []}
        device = next(self.expert.parameters()).device
        with torch.inference_mode():
            face = torch.from_numpy(np.stack(faces)).to(device).float() / 255  # (B, 15, H/2, W)
            mel = torch.from_numpy(np.stack(mels)).to(device)  # (B, 1, 80, 16)
            cosine = (self.expert.embed_face(face) * self.expert.embed_audio(mel)).sum(dim=1)
        return {"lsd": (1 - cosine).tolist()}
