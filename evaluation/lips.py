"""Whether a generator's lips follow the sound, or leak the video's own mouth.

    python -m evaluation.lips --checkpoint checkpoints/open.pth checkpoints/grid_s1.pth \\
        --filelist pairs.txt --data_root clips --out results/lips

Each line `audio_clip video_clip` of the list is drawn three times: with the other clip's sound,
with its own, and with silence. Lips are measured by landmarks that no training here optimises
(face_detection/landmarks.py), at 25 fps. `--help` says what the columns are.

Two baselines that a sync loss cannot tell from talking are always in the table: `copy` keeps the
video's mouth, `average` shows the clip's mean mouth. Means over the clips; lips.md, lips.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import os
import sys
from collections.abc import Iterable, Sequence

import numpy as np

from audio import TRAINING_FPS as FPS
from errors import InputError, require_file, run_cli
from evaluation.metrics import Column
from evaluation.pairs import Pair, read_pairs, require_some, resolve
from evaluation.score_table import ScoreTable, write_results
from media.files import file_label

BATCH = 64  # frames whose landmarks are found at a time
COLUMNS = {
    "follows": Column("lips follow the sound's clip: partial correlation of openings", 1),
    "leak": Column("lips follow the video that is redrawn: the same with that", -1),
    "amplitude": Column("spread of the lips' opening over that of the sound's clip, 1 is right"),
    "own": Column("correlation of the lips' opening with the truth, own sound", 1),
    "silence": Column("spread of the lips' opening with silence, over the true clip's", -1),
    "lmd": Column("landmark distance from the truth, own sound, percent of the face's height", -1),
    "lmd_mouth": Column("landmark distance of the lips' shape alone", -1),
}
BASELINES = ("copy", "average")
REMEMBERED = 64  # clips whose landmarks are kept: 8 kB a frame, and lists have thousands


def find_landmarks(shown: Iterable[tuple[np.ndarray, Sequence[float] | None]]) -> np.ndarray:
    """Landmarks (N, 468, 2) of frames with the box of their face. InputError where a frame has
    none: what is missing in the middle would put all later lips out of step.
    """
    from face_detection.landmarks import load_landmarks
    from face_detection.track import batched

    network, found = load_landmarks(), []
    for batch in batched(shown, BATCH):
        frames, boxes = zip(*batch, strict=True)
        if any(box is None for box in boxes):
            raise InputError("a frame has no face")
        found.append(network.find(frames, boxes))
    return np.concatenate(found)


class LipJudge:
    """Measures pairs of clips; the true lips of a clip are found once while it is REMEMBERED.

    lipsync: of any generator, for its face search. options: of LipSync.run.
    """

    def __init__(self, lipsync, **options) -> None:
        from lipsync.options import Options

        options = {"video_fps": FPS, "pad": "trim", "paste": "hard"} | options
        self.lipsync, self.opts = lipsync, Options(**options).resolved()
        self.truth = functools.lru_cache(REMEMBERED)(self._truth)

    def _truth(self, path: str) -> tuple:
        """A clip's FaceSource, its landmarks (N, 468, 2) and its speech. Its lips move even where
        generators are to redraw a still frame.
        """
        from media.read import load_audio

        wav = load_audio(path)
        moving = dataclasses.replace(self.opts, static=False)
        source = self.lipsync.find(path, moving, round(len(wav) / 16000 * FPS))
        points = find_landmarks(source.frames(len(source.boxes)))
        _warn_out_of_sync(path, points, wav)
        return source, points, wav

    def drawn(self, lipsync, video: str, wav: np.ndarray) -> np.ndarray:
        """Landmarks of the video as the generator redraws it to the speech wav (n,)."""
        from audio import speech_chunks

        source, _, _ = self.truth(video)
        if self.opts.static:
            source = dataclasses.replace(source, still=True, boxes=source.boxes[:1])
        chunks = speech_chunks(wav, FPS, self.opts.faithful, silence_gate=self.opts.silence_gate)
        frames = lipsync.frames(source, chunks)
        boxes = (source.boxes[index] for index in source.order(len(chunks)))
        return find_landmarks(zip(frames, boxes, strict=False))

    def score(self, lipsync, audio: str, video: str) -> dict[str, float]:
        """COLUMNS of a generator for one pair of clips, or of one of the BASELINES by its name."""
        from face_detection.landmarks import (
            LIPS,
            STILL,
            landmark_distance,
            lip_opening,
            lip_scores,
        )

        _, true, own_wav = self.truth(video)
        _, heard, wav = self.truth(audio)
        if lipsync == "copy":
            made = own = silent = true
        elif lipsync == "average":
            made = own = silent = _average_mouth(true)
        else:
            made, own, silent = (
                self.drawn(lipsync, video, sound)
                for sound in (wav, own_wav, np.zeros_like(own_wav))
            )
        length, opening = min(len(own), len(true)), lip_opening(true)
        scores = lip_scores(lip_opening(made), lip_opening(heard), opening)
        scores["own"] = lip_scores(lip_opening(own), opening, np.zeros(length))["follows"]
        scores["silence"] = float(lip_opening(silent).std() / max(opening.std(), STILL))
        scores["lmd"] = landmark_distance(own[:length], true[:length])
        scores["lmd_mouth"] = landmark_distance(own[:length], true[:length], list(LIPS))
        return scores


def _warn_out_of_sync(path: str, points: np.ndarray, wav: np.ndarray) -> None:
    """Said of a clip whose own lips do not follow its sound: nobody can follow both."""
    from experts.lip_lag import LEAST, SURE, lip_offset
    from face_detection.landmarks import lip_opening

    if len(points) < LEAST:
        return
    found = lip_offset(lip_opening(points), wav, FPS)
    if abs(found.offset) > 2 and found.confidence > SURE:
        print(
            f"{path}: its sound seems {abs(found.offset)} frames "
            f"{'early' if found.offset > 0 else 'late'}: follows would be measured against lips "
            "that are not in sync",
            file=sys.stderr,
        )


def _average_mouth(points: np.ndarray) -> np.ndarray:
    """Landmarks whose lips have the clip's mean shape and opening, in each frame's place."""
    from face_detection.landmarks import CHIN, LIPS, TOP

    lips = list(LIPS)
    height = np.linalg.norm(points[:, TOP] - points[:, CHIN], axis=1)[:, None, None]
    centre = points[:, lips].mean(1, keepdims=True)
    made = points.copy()
    made[:, lips] = centre + height * ((points[:, lips] - centre) / height).mean(0)
    return made


def score_lips(
    judge: LipJudge, generators: dict[str, object], pairs: Sequence[Pair], data_root: str,
    folder: str, settings: dict | None = None, progress: bool = False,
    baselines: Sequence[str] = BASELINES,
) -> dict[str, dict]:  # fmt: skip
    """{name: ScoreTable's summary} of generators (name: LipSync) and of `baselines`.

    Scores are kept in `folder` as they are made. settings: what they depend on beside the
    generator. A pair that one of them cannot be scored on is left out for it, with the reason.
    """
    items = [
        (str(pair), [resolve(data_root, pair.audio) or "", resolve(data_root, pair.video) or ""],
         pair) for pair in pairs
    ]  # fmt: skip

    def score(generator, audio: str, video: str, pair: Pair) -> dict:
        if not (audio and video):
            raise InputError(f"file missing: {pair.video if audio else pair.audio}")
        return judge.score(generator, audio, video)

    results = {}
    for number, name in enumerate((*generators, *baselines)):
        of = {"generator": name, **(settings or {})}  # whose own, with a digest, tells more
        kind = name if name in baselines else f"generator{number}"
        table = ScoreTable(folder, f"lips_{kind}", COLUMNS, of)
        drawn = functools.partial(score, generators.get(name, name))
        results[name] = table.run(items, drawn, progress)
    return results


def means(summary: dict) -> dict[str, float] | None:
    """The mean scores of a summary; None where nothing was scored."""
    found = summary["scores"]
    return {n: found[n]["mean"] for n in COLUMNS} if summary["videos"] else None


def warning(scores: dict[str, float]) -> str:
    """What the numbers mean where they are bad, in plain words, else ""."""
    if scores["leak"] > max(0.3, scores["follows"]):
        return "the lips follow the video, not the sound: see docs/training.md, leakage"
    if scores["follows"] < 0.2:
        return "the lips do not follow the sound" + (
            ": they hardly move" if scores["amplitude"] < 0.5 else ""
        )
    return ""


def format_table(results: dict[str, dict]) -> str:
    """Markdown: a row for each generator and baseline, and a line for each warning."""
    lines = ["| | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    notes = []
    for name, summary in results.items():
        scores = means(summary)
        numbers = (f"{scores[column]:.2f}" if scores else "-" for column in COLUMNS)
        lines.append(f"| {name} | " + " | ".join(numbers) + " |")
        if scores and name not in BASELINES and (text := warning(scores)):
            notes.append(f"**{name}**: {text}.")
    return "\n".join(lines) + "".join(f"\n\n{note}" for note in notes)


def get_args_parser() -> argparse.ArgumentParser:
    from lipsync.options import REFERENCE, positive

    parser = argparse.ArgumentParser(
        description="Do the lips follow the sound?",
        epilog="columns:\n" + "\n".join(f"  {n:10} {c}" for n, c in COLUMNS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    # fmt: off
    add("--checkpoint", nargs="+", required=True, help="generator weights, one or more")
    add("--filelist", required=True, help="lines `audio_clip video_clip`, below DATA_ROOT")
    add("--data_root", required=True, help="folder of the clips")
    add("--out", default="results/lips", help="default %(default)s")
    add("--limit", type=positive, help="only the first so many pairs")
    add("--static", action="store_true", help="on each video's first frame instead of the video")
    add("--reference", default=REFERENCE, help="as of inference.py; default %(default)s")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    # fmt: on
    return parser


def main(args: argparse.Namespace) -> None:
    from face_detection.landmarks import model_path
    from lipsync.engine import LipSync
    from lipsync.options import REFERENCES

    model_path()  # before the work begins
    for path in args.checkpoint:
        require_file(path, "checkpoint")
    if args.reference not in REFERENCES:
        require_file(args.reference, "--reference")
    pairs = read_pairs(args.filelist)[: args.limit]
    require_some(pairs, args.data_root, args.data_root)
    generators = {file_label(path): LipSync(path, args.device) for path in args.checkpoint}
    judge = LipJudge(next(iter(generators.values())), static=args.static, reference=args.reference)
    settings = {"static": args.static, "reference": args.reference}
    results = score_lips(
        judge, generators, pairs, args.data_root, args.out, settings, progress=True
    )
    if not any(summary["videos"] for summary in results.values()):
        skipped = results["copy"]["skipped"][0]
        raise InputError(f"no pair can be scored: {skipped['video']}: {skipped['reason']}")
    text = format_table(results)
    left_out = {e["video"]: e["reason"] for r in results.values() for e in r["skipped"]}
    text += "".join(f"\n\nleft out {pair}: {reason}" for pair, reason in left_out.items())
    write_results(os.path.join(args.out, "lips"), text + "\n", results)
    print(text)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
