"""Both generator families on the same clips, steps and seed, side by side in one table.

    python -m evaluation.compare_models --data_root data/demo/corpus \\
        --preprocessed_root data/demo/preprocessed --expert data/demo/checkpoints/expert \\
        --config configs/tiny_cpu.yaml --hparams nsteps=850 seed=4 --out results/compare

Trains each of --models by wav2lip_train.py (the same command again continues) and writes
<out>/compare.md, compare.json, curves, a contact sheet a model, and the masks of those that have
one. Scores are of the test split's clips, as in evaluation/demo_report.py.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from errors import InputError, run_cli
from media.files import replacing, write_json

# torch, OpenCV and matplotlib are imported inside the functions, so that --help answers at once

# What each model adds to the shared hyper-parameters: widths of about the same cost a step
MODELS = {
    "Wav2Lip": ["model=Wav2Lip", "width=0.125"],
    "crossattn": ["model=crossattn", "width=0.125", "face_encoder=resnet50"],
    "crossattn_transformer": [
        "model=crossattn", "width=0.125", "face_encoder=resnet50",
        "audio_encoder=conv1d_transformer",
    ],
    "crossattn_efficientnet": ["model=crossattn", "width=0.25", "face_encoder=efficientnet_b0"],
}  # fmt: skip
COLUMNS = {
    "l1": "L1",
    "l1_mouth": "L1, mouth",
    "sync": "sync loss",
    "mouth_correlation": "mouth",
    "mouth_correlation_wrong_audio": "mouth, wrong sound",
    "outside": "levels outside",
    "parameters": "million parameters",
    "gflop": "GFLOP a frame",
    "fps": "frames/s",
}
TIMED_FRAMES = 48
TRAIN_SCRIPT = Path(__file__).resolve().parents[1] / "wav2lip_train.py"


def train(name: str, args: argparse.Namespace, checkpoints: str) -> None:
    """Run wav2lip_train.py for one model, its output on this terminal; InputError if it fails."""
    command = [
        sys.executable, str(TRAIN_SCRIPT), "--data_root", args.preprocessed_root,
        "--filelists", os.path.join(args.data_root, "filelists"), "--log_dir", _runs(args),
        "--checkpoint_dir", checkpoints, "--syncnet_checkpoint_path", args.expert_file,
        "--device", args.device, *(["--config", args.config] if args.config else []),
        "--hparams", *args.hparams, *MODELS[name],
    ]  # fmt: skip
    result = subprocess.run(command)
    if result.returncode:
        raise InputError(f"training {name} ended with exit code {result.returncode}")


def _runs(args: argparse.Namespace) -> str:
    return os.path.join(args.out, "runs")


def measure(name: str, checkpoints: str, clips: list, args: argparse.Namespace) -> dict:
    """One row: the last validation's losses, scores on the clips, size and speed."""
    from evaluation.demo_report import mouth_scores, newest
    from lipsync.engine import LipSync
    from models.checkpoint import load_generator
    from models.cost import frame_flop
    from training.curves import read_metrics

    weights = newest(checkpoints)
    last = read_metrics(os.path.join(_runs(args), name), "val")[-1]
    lipsync = LipSync(weights, args.device)
    row = {key: last[key] for key in ("l1", "l1_mouth", "sync")} | {"step": last["step"]}
    row |= mouth_scores(lipsync, clips, os.path.join(args.out, f"{name}.png"))
    model = load_generator(weights)
    row["parameters"] = sum(p.numel() for p in model.parameters()) / 1e6
    row["gflop"] = frame_flop(model) / 1e9
    row["fps"] = frames_per_second(lipsync)
    row["outside"] = difference_outside(
        lipsync, clips[0], os.path.join(args.out, f"{name}_mask.png")
    )
    return row


def frames_per_second(lipsync) -> float:
    """Of the network alone, the best of three rounds on noise."""
    rng, size = np.random.default_rng(0), lipsync.img_size
    faces = rng.integers(0, 256, (TIMED_FRAMES, size, size, 3), np.uint8)
    mels = rng.uniform(-4, 4, (TIMED_FRAMES, 80, 16)).astype(np.float32)
    lipsync.backend.generate(faces[:8], mels[:8])
    best = 0.0
    for _ in range(3):
        began = time.perf_counter()
        lipsync.backend.generate(faces, mels)
        best = max(best, TIMED_FRAMES / (time.perf_counter() - began))
    return best


def difference_outside(lipsync, clip, sheet: str) -> float:
    """Mean difference in grey levels between a clip's frames and those made of them, in the face
    box but outside its lower middle, where the mouth is. Where the model has a mask, it is drawn
    into `sheet`: the face, what is generated, the mask.
    """
    import cv2

    from face_detection.track import crop_face
    from media.read import iter_frames

    made = sheet + ".mkv"
    lipsync.run(clip.video, clip.video, made)
    differences, rows = [], []
    pairs = zip(iter_frames(clip.video), iter_frames(made), clip.boxes, strict=False)
    try:
        for number, ((_, true), (_, new), box) in enumerate(pairs):
            if box is None:
                continue
            faces = [crop_face(frame, tuple(map(int, box[:4])), 128) for frame in (true, new)]
            error = np.abs(faces[0].astype(int) - faces[1]).mean(axis=2)
            error[64:, 24:104] = np.nan  # the mouth's region
            differences.append(np.nanmean(error))
            if number % 15 == 5:
                face = crop_face(true, tuple(map(int, box[:4])), lipsync.img_size)
                mel = np.zeros((1, 80, 16), np.float32) - 4
                drawn = lipsync.backend.generate(face[None], mel)[0]
                if drawn.shape[2] == 4:
                    mask = np.repeat(drawn[..., 3:], 3, axis=2)
                    rows.append(np.hstack([face, np.ascontiguousarray(drawn[..., :3]), mask]))
    finally:
        os.remove(made)
    if rows:
        with replacing(sheet, "wb") as file:
            file.write(cv2.imencode(".png", np.vstack(rows))[1])
    return float(np.mean(differences))


def markdown(rows: dict[str, dict], args: argparse.Namespace) -> str:
    lines = [
        "# Generators side by side", "",
        f"The same clips, expert, steps, seed: `{' '.join(args.hparams)}`. mouth: correlation of "
        "generated and true mouth opening on clips of unseen speakers (higher is better, with the "
        "wrong sound lower); levels outside: mean change of the face outside the mouth's region. "
        "L1 of families does not compare: crossattn keeps the target's upper half.", "",
        "| model | " + " | ".join(COLUMNS.values()) + " |", "|---|" + "---:|" * len(COLUMNS),
    ]  # fmt: skip
    for name, row in rows.items():
        lines.append(f"| {name} | " + " | ".join(f"{row[key]:.3f}" for key in COLUMNS) + " |")
    return "\n".join(lines) + "\n"


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Both generator families, side by side.")
    add = parser.add_argument
    # fmt: off
    add("--data_root", required=True, help="the corpus of python -m synthetic")
    add("--preprocessed_root", required=True)
    add("--expert", required=True, help="checkpoint, or its folder: the newest")
    add("--models", nargs="+", choices=tuple(MODELS), default=["Wav2Lip", "crossattn"])
    add("--config", help="YAML of hyper-parameters, for all models")
    add("--hparams", nargs="*", default=[], metavar="KEY=VALUE", help="for all models")
    add("--out", default="results/compare", help="default %(default)s")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    # fmt: on
    return parser


def main(args: argparse.Namespace) -> None:
    from evaluation.demo_report import load_clips, newest
    from training.curves import plot_curves

    args.expert_file = newest(args.expert)
    os.makedirs(args.out, exist_ok=True)
    clips = load_clips(args.data_root, args.preprocessed_root)
    rows = {}
    for name in args.models:
        checkpoints = os.path.join(args.out, "checkpoints", name)
        train(name, args, checkpoints)
        rows[name] = measure(name, checkpoints, clips, args)
    write_json(os.path.join(args.out, "compare.json"), rows, indent=2)
    text = markdown(rows, args)
    with replacing(os.path.join(args.out, "compare.md")) as file:
        file.write(text)
    runs = {name: os.path.join(_runs(args), name) for name in args.models}
    curves = os.path.join(args.out, "curves.png")
    plot_curves(runs, curves, ["l1", "l1_mouth", "sync", "grad_norm"])
    print(text)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
