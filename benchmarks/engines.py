"""What the benchmarks run the generator on: the back ends, and the released way."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from backends.api import NAMES, create_backend
from backends.base import Backend
from errors import InputError

EAGER = "eager"
BACKENDS = NAMES[1:]  # without "auto"


class EagerBackend(Backend):
    """The network as the released program calls it: whole batches, pictures scaled by NumPy in
    float64, batch norms apart, a still face encoded again with every mel window.
    """

    name = EAGER
    chunk = None

    def __init__(self, model, device) -> None:
        super().__init__(model)
        self.splits = False
        self._model, self._device = model.to(device).eval(), device

    def describe(self) -> str:
        import torch

        return f"torch {torch.__version__}, float32, {str(self._device).upper()}, as released"

    def _run(self, part: str, *inputs: np.ndarray) -> tuple:
        import torch

        faces, mels, references = inputs
        masked = faces.copy()
        masked[:, faces.shape[1] // 2 :] = 0
        pictures = np.concatenate((masked, references), axis=3) / 255.0
        tensors = (
            torch.FloatTensor(x).to(self._device)
            for x in (mels[:, None], pictures.transpose(0, 3, 1, 2))
        )
        with torch.no_grad():
            made = self._model(*tensors)  # (N, 3, H, W)
        return ((made.cpu().numpy().transpose(0, 2, 3, 1) * 255.0).astype(np.uint8),)


def make_engines(checkpoint: str, device, names: Sequence[str] | None) -> dict[str, Backend]:
    """The released way and the back ends called `names`; None: those that there are."""
    from models.checkpoint import load_generator

    engines: dict[str, Backend] = {EAGER: EagerBackend(load_generator(checkpoint), device)}
    for name in BACKENDS if names is None else names:
        try:
            engines[name] = create_backend(load_generator(checkpoint), device, name)
        except InputError as error:
            if names:
                raise
            print(f"left out: {name}: {error}", file=sys.stderr)
    return engines
