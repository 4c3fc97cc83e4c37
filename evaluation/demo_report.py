"""The end of `make demo`: scores on held-out synthetic speakers, as a table, pictures and JSON.

    python -m evaluation.demo_report --data_root data/demo/corpus \\
        --preprocessed_root data/demo/preprocessed --expert data/demo/checkpoints/expert \\
        --generator data/demo/checkpoints/wav2lip --log_dir data/demo/runs --out results/demo

Every test clip is generated twice, with its own audio and with another clip's. The mouth's opening
is measured on the pixels of the generated and of the true frames by one function and correlated:
high with the right audio, low with the wrong one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from errors import InputError, run_cli
from evaluation.contact_sheet import face_row
from evaluation.report_plots import write_sheet
from evaluation.score_table import write_results

AIMS = {"expert_accuracy": 0.85, "mouth_correlation": 0.70, "mouth_correlation_wrong_audio": 0.35}
WINDOWS = 500  # of the clips, that the expert judges
SHEET_SECONDS = 0.2  # between the frames of the contact sheet
# The mouth's place in a detected face box (rows, columns as shares); generous, since jaws drop.
ROWS, COLUMNS = (0.60, 0.92), (0.22, 0.78)
DARK = 0.55  # of the skin's red: lips are above, the inside of a mouth is below
BRIGHT = 1.5  # times the skin's blue: teeth are above, skin and lips below


def mouth_opening(frame: np.ndarray, box: Sequence[float]) -> float:
    """Share of the mouth region of a face that is the inside of an open mouth: dark, or teeth.

    frame: uint8 BGR (H, W, 3); box: x1, y1, x2, y2 of the face in its pixels. A pixel is dark by
    how far its red is below DARK times the region's median red, and a tooth by how far its blue is
    above BRIGHT times the median blue, so that soft edges count in part and the overall light does
    not matter. A number to correlate, not a length: it also grows with the mouth's share of the
    box. On synthetic clips it correlates 0.96 on average with the true opening (0.88 at worst).
    """
    x1, y1, x2, y2 = box
    rows = slice(round(y1 + ROWS[0] * (y2 - y1)), round(y1 + ROWS[1] * (y2 - y1)))
    columns = slice(round(x1 + COLUMNS[0] * (x2 - x1)), round(x1 + COLUMNS[1] * (x2 - x1)))
    region = frame[rows, columns].astype(np.float32)
    blue, red = region[..., 0], region[..., 2]
    skin_blue, limit = max(np.median(blue), 1.0), max(DARK * np.median(red), 1.0)
    dark = np.clip((limit - red) / limit * 2, 0, 1)
    teeth = np.clip((blue / skin_blue - BRIGHT) * 2, 0, 1)
    return float((dark + teeth).mean())


def mouth_openings(video: str, boxes: Sequence[Sequence[float] | None]) -> list[float]:
    """mouth_opening of every frame of a video that has a box; 0 where the box is None."""
    from media.read import iter_frames

    return [
        0.0 if box is None else mouth_opening(frame, box)
        for (_, frame), box in zip(iter_frames(video), boxes, strict=False)
    ]


@dataclass(frozen=True)
class DemoClip:
    """A held-out clip: its video, its face boxes and its mouth's opening, frame by frame."""

    name: str
    video: str
    boxes: list
    opening: list[float]


def load_clips(data_root: str, preprocessed_root: str) -> list[DemoClip]:
    """The clips of the test split, measured; InputError where one is missing."""
    from corpus.clips import read_record
    from hparams import get_image_list

    clips = []
    for folder in get_image_list(preprocessed_root, "test", os.path.join(data_root, "filelists")):
        name = os.path.relpath(folder, preprocessed_root)
        video = os.path.join(data_root, "mvlrs_v1", "main", f"{name}.mp4")
        try:
            boxes = read_record(folder)["boxes"]
        except (OSError, ValueError, KeyError) as error:
            raise InputError(f"{folder} is not a preprocessed clip ({error})") from error
        clips.append(DemoClip(name, video, boxes, mouth_openings(video, boxes)))
    return clips


def mouth_scores(lipsync, clips: list[DemoClip], sheet: str) -> dict[str, float]:
    """Mean correlation of generated and true mouth opening, with own and with another's audio.

    Writes the contact sheet of the first clips, truth above generated.
    """
    from tqdm import tqdm

    from face_detection.landmarks import lip_scores

    own, wrong, rows = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        made = os.path.join(folder, "made.mkv")
        bar = tqdm(clips, unit="clip", disable=None)
        for number, clip in enumerate(bar):
            other = clips[(number + len(clips) // 2) % len(clips)]  # of another speaker
            for audio, scores in ((clip, own), (other, wrong)):
                lipsync.run(clip.video, audio.video, made)
                opening, nothing = mouth_openings(made, clip.boxes), np.zeros(len(clip.boxes))
                scores.append(lip_scores(opening, clip.opening, nothing)["follows"])
                if audio is clip and number % max(1, len(clips) // 3) == 0:
                    boxes = [box for box in clip.boxes if box is not None]
                    rows += [face_row(x, SHEET_SECONDS, None, boxes) for x in (clip.video, made)]
    write_sheet(rows, sheet)
    return {
        "mouth_correlation": float(np.mean(own)),
        "mouth_correlation_wrong_audio": float(np.mean(wrong)),
        "mouth_correlation_worst_clip": float(np.min(own)),
    }


def expert_scores(path: str, preprocessed_root: str, filelists: str) -> dict[str, float]:
    """The expert's accuracy on the same clips, whose speakers and audio it has never met."""
    from experts.offset import balanced, load_expert
    from hparams import HParams
    from training import expert_validation as validation
    from training.setup import validation_batches

    expert = load_expert(path)
    hp = HParams(img_size=expert.size, eval_windows=WINDOWS, num_workers=0)
    data = validation.ExpertValidationDataset(preprocessed_root, "test", hp, filelists)
    found = validation.pair_cosines(expert.model, validation_batches(data, 64, hp), expert.device)
    own, far = (validation.found_pairs(found, s) for s in ([0], validation.far_from(0)))
    scores = {"expert_accuracy": balanced(own, far)}
    for name, value in validation.summarise([found]).items():
        if name.startswith("accuracy_shift"):
            scores[f"expert_{name}"] = value
    return scores


def markdown(scores: dict[str, float], clips: int) -> str:
    """The report as text: each aim with what was reached, then the rest."""
    lines = [
        "# Demo report", "",
        f"{clips} held-out clips of speakers that no training saw. Small models, minutes of CPU: "
        "this shows that every stage works, not what the full models look like.", "",
        "| measure | value | aim | met |", "|---|---|---|---|",
    ]  # fmt: skip
    for name, value in scores.items():
        aim, met = "", ""
        if name in AIMS:
            at_most = name.endswith("wrong_audio")
            aim = f"{'<=' if at_most else '>='} {AIMS[name]:.2f}"
            met = "yes" if (value <= AIMS[name] if at_most else value >= AIMS[name]) else "**no**"
        lines.append(f"| {name} | {value:.3f} | {aim} | {met} |")
    lines += [
        "", "- expert_accuracy: in-sync windows against windows 3, 5 or 10 frames off",
        "- mouth_correlation: generated against true mouth opening, own audio",
        "- ..._wrong_audio: the same when the clip is driven by another clip's audio",
        "", "![truth above generated](contact_sheet.png)", "", "![curves](curves.png)", "",
    ]  # fmt: skip
    return "\n".join(lines)


def newest(folder: str) -> str:
    """Path of the newest checkpoint in a folder, or the path itself if it is a file."""
    from models.checkpoint import list_checkpoints

    if os.path.isfile(folder):
        return folder
    found = list_checkpoints(folder)
    if not found:
        raise InputError(f"no checkpoint in {folder}")
    return found[-1][1]


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Score the demo's models on held-out clips.")
    parser.add_argument("--data_root", required=True, help="the corpus of python -m synthetic")
    parser.add_argument("--preprocessed_root", required=True)
    parser.add_argument("--expert", required=True, help="checkpoint, or its folder: the newest")
    parser.add_argument("--generator", required=True, help="checkpoint, or its folder: the newest")
    parser.add_argument("--log_dir", default="runs", help="where the training logs lie")
    parser.add_argument("--out", default="results/demo")
    return parser


def main(args: argparse.Namespace) -> None:
    from lipsync.engine import LipSync
    from training.curves import plot_curves

    expert, lipsync = newest(args.expert), LipSync(newest(args.generator))
    clips = load_clips(args.data_root, args.preprocessed_root)
    os.makedirs(args.out, exist_ok=True)
    lists = os.path.join(args.data_root, "filelists")
    scores = expert_scores(expert, args.preprocessed_root, lists)
    scores |= mouth_scores(lipsync, clips, os.path.join(args.out, "contact_sheet.png"))
    runs = {
        name: os.path.join(args.log_dir, os.path.basename(os.path.normpath(folder)))
        for name, folder in (("expert", args.expert), ("generator", args.generator))
    }
    names = ["loss", "accuracy", "auc", "l1", "l1_mouth", "sync"]
    plot_curves(runs, os.path.join(args.out, "curves.png"), names)
    text = markdown(scores, len(clips))
    report = {"clips": [clip.name for clip in clips], "aims": AIMS, **scores}
    write_results(os.path.join(args.out, "report"), text, report)
    print("\n".join(line for line in text.splitlines() if line.startswith("|")))
    print(f"\n{args.out}: report.md, report.json, contact_sheet.png, curves.png")


if __name__ == "__main__":
    run_cli(main, get_args_parser())
