"""What generates: the back ends and the released way; and the network alone, by batch size and
precision, against what a matrix product reaches.
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence

import numpy as np

from backends.api import NAMES, create_backend
from backends.base import Backend
from benchmarks.common import best_times, circumstances, report
from errors import InputError

EAGER = "eager"
BACKENDS = NAMES[1:]  # without "auto"
SPAN = 0.5  # seconds, about, for each figure of each round
COLUMNS = {
    "way": "{way}, {precision}", "batch": "batch", "ms a batch": "ms_per_batch",
    "frames/s": "frames_per_second", "TFLOP/s": "tflops", "of matmul": "{share_of_matmul:.1%}",
}  # fmt: skip


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


def measure_generator(checkpoint: str, args: argparse.Namespace) -> None:
    """Print frames a second and TFLOP/s of the released way and of our back ends, on noise: time
    does not depend on what the faces and mel windows hold.
    """
    import torch

    from backends.torch import TorchBackend
    from models.checkpoint import load_generator
    from models.cost import frame_flop
    from models.device import select_device

    facts, device = circumstances(), select_device(args.device)
    gpu = device.type == "cuda"
    operations = frame_flop(load_generator(checkpoint))
    made = make_engines(checkpoint, device, () if gpu else args.backends)
    engines = {(name, "float32"): engine for name, engine in made.items()}
    for precision in ("float32", "float16") if gpu else ():  # no CPU is faster in half
        half = precision == "float16"
        engines["torch", precision] = TorchBackend(load_generator(checkpoint), device, half)
    peaks = {
        precision: matmul_flops(device, getattr(torch, precision), args.repeats)
        for _, precision in engines
    }
    random, steps, rows = np.random.default_rng(0), {}, []
    for batch in sorted(set(args.batches)):
        for (way, precision), engine in engines.items():
            engine.chunk, size = None, engine.img_size  # the batch is what is asked for
            faces = random.integers(0, 256, (batch, size, size, 3), np.uint8)
            mels = random.uniform(-4, 4, (batch, 80, 16)).astype(np.float32)
            steps[way, precision, batch] = functools.partial(engine.generate, faces, mels)
    for (way, precision, batch), seconds in warm_times(steps, args.repeats, "batches").items():
        row = {"way": way, "precision": precision, "batch": batch, "ms_per_batch": 1000 * seconds}
        row["frames_per_second"] = batch / seconds
        row["tflops"] = operations * batch / seconds / 1e12
        row["share_of_matmul"] = operations * batch / seconds / peaks[precision]
        rows.append(row)
    title = f"generator alone, {operations / 1e9:.2f} GFLOP a frame, on {device}"
    reached = {name: flops / 1e12 for name, flops in peaks.items()}
    report(
        args, title, facts, [(rows, COLUMNS)],
        "Bytes to bytes, transfers included. A large matrix product reaches, TFLOP/s: "
        + ", ".join(f"{name} {flops:.3g}" for name, flops in reached.items())
        + ". TFLOP/s of a way: frames/s times the network's operations.",
        gflop_per_frame=operations / 1e9, generator=rows, matmul_tflops=reached,
    )  # fmt: skip


def matmul_flops(device, dtype, repeats: int) -> float:
    """Operations a second of a large matrix product. In float32 on a GPU: TF32, which cuDNN's
    convolutions take by default.
    """
    import torch

    side = 8192 if device.type == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if device.type == "cuda" else before)

    def multiply() -> None:
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    try:
        return 2 * side**3 / warm_times({"": multiply}, repeats, "matmul")[""]
    finally:
        torch.set_float32_matmul_precision(before)


def warm_times(steps: dict, repeats: int, what: str) -> dict:
    """best_times over SPAN, after two calls: a GPU records its graph at the second one."""
    for step in (*steps.values(), *steps.values()):
        step()
    return best_times(steps, repeats, what, SPAN)
