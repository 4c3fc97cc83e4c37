"""The generator alone, by batch size and precision, against what a matrix product reaches."""

from __future__ import annotations

import argparse
import functools
import math
import time
from collections.abc import Callable, Hashable
from typing import TypeVar

import numpy as np

from benchmarks.common import best_times, circumstances, print_report, write_report

# torch is imported inside the functions, so that --help answers at once

SPAN = 0.5  # seconds, about, for each figure of each round
K = TypeVar("K", bound=Hashable)
COLUMNS = {
    "way": "{way}, {precision}", "batch": "batch", "ms a batch": "ms_per_batch",
    "frames/s": "frames_per_second", "TFLOP/s": "tflops", "of matmul": "{share_of_matmul:.1%}",
}  # fmt: skip


def generator_benchmark(checkpoint: str, args: argparse.Namespace) -> None:
    """Print frames a second and TFLOP/s of the released way and of our back ends, on noise: time
    does not depend on what the faces and mel windows hold.
    """
    import torch

    from backends.torch import TorchBackend
    from benchmarks.engines import make_engines
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
    for (way, precision, batch), seconds in call_seconds(steps, args.repeats, "batches").items():
        row = {"way": way, "precision": precision, "batch": batch, "ms_per_batch": 1000 * seconds}
        row["frames_per_second"] = batch / seconds
        row["tflops"] = operations * batch / seconds / 1e12
        row["share_of_matmul"] = operations * batch / seconds / peaks[precision]
        rows.append(row)
    title = f"generator alone, {operations / 1e9:.2f} GFLOP a frame, on {device}"
    print_report(title, facts, rows, COLUMNS)
    reached = ", ".join(f"{name} {flops / 1e12:.3g}" for name, flops in peaks.items())
    print(
        f"Bytes to bytes, transfers included. A large matrix product reaches, TFLOP/s: {reached}. "
        "TFLOP/s of a way: frames/s times the network's operations."
    )
    content = {"gflop_per_frame": operations / 1e9, "generator": rows}
    content["matmul_tflops"] = {name: flops / 1e12 for name, flops in peaks.items()}
    write_report(args.json, facts, content)


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
        return 2 * side**3 / call_seconds({"": multiply}, repeats, "matmul")[""]
    finally:
        torch.set_float32_matmul_precision(before)


def call_seconds(steps: dict[K, Callable[[], object]], repeats: int, what: str) -> dict[K, float]:
    """Seconds of a call of each step, after two calls, over SPAN, the best of `repeats` rounds."""
    calls = {}
    for key, step in steps.items():
        step()
        step()  # a GPU records its graph at the second one
        start = time.perf_counter()
        step()
        calls[key] = math.ceil(SPAN / max(time.perf_counter() - start, 1e-6))

    def repeat(step: Callable[[], object], count: int) -> None:
        for _ in range(count):
            step()

    repeated = {key: functools.partial(repeat, step, calls[key]) for key, step in steps.items()}
    took = best_times(repeated, repeats, what)
    return {key: seconds / calls[key] for key, seconds in took.items()}
