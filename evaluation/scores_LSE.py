# ruff: noqa: N999  (the official scripts' name)
"""LSE-D and LSE-C of videos: how far lips and sound are apart for SyncNet v2, and how sure it is.

    python -m evaluation.scores_LSE --videos results/lrs2 --protocol lrs --out results/scores
    python -m evaluation.scores_LSE --videos a.mp4 b.mp4 --protocol real --detector centerface \\
        --out results/scores
    python -m evaluation.scores_LSE --videos results/lrs2 --protocol lrs --out results/scores \\
        --expert checkpoints/expert/best.pth

Protocol `lrs` looks at the whole frame, `real` at the crops of face tracks (face_tracks.py); the
crop alone moves LSE by about 1, so numbers of different protocols do not compare. Writes
`lse_<protocol>.csv` (a row a video or track) and `.json` (means, settings, what was skipped and
why). The same command goes on where it was stopped. With --expert, our own SyncNet_color judges the
face boxes it was trained on in either protocol: `sync_<protocol>`, a number of its own and no LSE.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator

import numpy as np

from audio import pcm16
from errors import InputError, require_file, run_cli
from evaluation import face_tracks
from evaluation.face_tracks import FPS, Track, best_faces, box_crop, square_crop
from evaluation.fid import list_videos, make_detector
from evaluation.score_table import ScoreTable, format_scores
from experts.offset import BATCH, FRAME_SAMPLES, MAX_SHIFT, Expert, load_expert
from face_detection.arguments import add_detector_arguments
from lipsync.options import positive

PROTOCOLS = ("lrs", "real")
TRACK_COLUMNS = ("track", "first_frame", "frames")
SHOWN = 5  # skipped videos that are named on the screen


class SyncScorer:
    """An expert with a protocol: scores one video after the other.

    protocol: "lrs" or "real". detector: finds the faces; SyncNet v2 in protocol `lrs` needs none.
    vshift: frames by which the sound is slid either way. batch_size: windows embedded at a time; it
    bounds the memory and changes no score.
    """

    def __init__(
        self, expert: Expert, protocol: str = "lrs", detector=None, vshift: int = MAX_SHIFT,
        batch_size: int = BATCH,
    ) -> None:  # fmt: skip
        if protocol not in PROTOCOLS:
            raise InputError(f"unknown protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
        if detector is None and needs_detector(expert, protocol):
            raise InputError(f"{expert.kind} in protocol {protocol} needs a face detector")
        self.expert, self.protocol, self.detector = expert, protocol, detector
        self.vshift, self.batch_size = vshift, batch_size
        # a SyncNet_color's numbers are on another scale and must never pass for LSE
        scores = ("lse_d", "lse_c") if expert.published else ("sync_distance", "sync_confidence")
        self.scores = (*scores, "offset")
        self.columns = (*(TRACK_COLUMNS if protocol == "real" else ()), *self.scores)

    @property
    def settings(self) -> dict:
        detector, real = self.detector and self.detector.name, self.protocol == "real"
        return {
            "protocol": self.protocol,
            "expert": f"{self.expert.kind}: {self.expert.label}",
            "vshift": self.vshift,
            "detector": detector,
            "track_rules": face_tracks.track_rules(detector) if real else None,
        }

    def table(self, folder: str | os.PathLike, audio: str = "own") -> ScoreTable:
        """The table for these scores in `folder`; audio: a word for whose sound is judged."""
        name = f"{'lse' if self.expert.published else 'sync'}_{self.protocol}"
        return ScoreTable(folder, name, self.columns, self.settings | {"audio": audio})

    def score_video(
        self, path: str | os.PathLike, audio: str | os.PathLike | None = None
    ) -> list[dict]:
        """A row of scores, or in protocol `real` a row for each face track; see `columns`.

        audio: another file whose sound is judged instead, cut to the shorter of the two. A track
        with too little sound has a row without scores. InputError where there is no score at all.
        """
        from media.read import load_audio

        wav = pcm16(load_audio(path if audio is None else audio))
        if self.protocol == "real":
            return self._score_tracks(path, wav)
        faces = self._whole_video(path, len(wav) // FRAME_SAMPLES)
        return [self._judge(self.expert.embed_lips(faces, self.batch_size), wav)]

    def _score_tracks(self, path: str | os.PathLike, wav: np.ndarray) -> list[dict]:
        tracks = face_tracks.find_tracks(path, self.detector)
        if not tracks:
            raise InputError(
                f"no face track: none with more than {face_tracks.MIN_TRACK} frames and "
                f"{face_tracks.MIN_FACE} px"
            )
        rows, fault = [], None
        every = face_tracks.iter_crops(path, tracks, self._crop)
        for number, (track, crops) in enumerate(zip(tracks, every, strict=True)):
            row = dict(zip(TRACK_COLUMNS, (number, track.first, track.frames), strict=True))
            heard = wav[track.first * FRAME_SAMPLES :][: track.frames * FRAME_SAMPLES]
            try:
                row |= self._judge(self.expert.embed_lips(crops, self.batch_size), heard)
            except InputError as error:
                fault = error
            rows.append(row)
        if fault is not None and not any(self.scores[0] in row for row in rows):
            raise fault
        return rows

    def _crop(self, frame: np.ndarray, track: Track, i: int) -> np.ndarray:
        """Of a track's frame what the expert looks at."""
        if self.expert.published:
            return square_crop(frame, track.squares[i])
        return box_crop(frame, track.boxes[i], self.expert.size)

    def _whole_video(self, path: str | os.PathLike, limit: int) -> Iterator[np.ndarray]:
        """What the expert looks at in each of the first `limit` frames (the sound ends there)."""
        import cv2

        from media.read import iter_frames

        size = self.expert.size
        frames = (frame for _, frame in itertools.islice(iter_frames(path, FPS), limit))
        if self.expert.published:
            return (cv2.resize(frame, (size, size)) for frame in frames)
        return best_faces(frames, self.detector, size)

    def _judge(self, lips: np.ndarray, wav: np.ndarray) -> dict:
        """The scores of consecutive faces and the int16 sound that begins with them. Over fewer
        shifts than vshift the median would be another.
        """
        found = self.expert.offset(lips, wav, self.vshift, whole=True)
        return dict(zip(self.scores, (found.distance, found.confidence, found.offset), strict=True))


def needs_detector(expert: Expert, protocol: str) -> bool:
    """Whether faces are looked for: only SyncNet v2 in protocol `lrs` takes the whole frame."""
    return protocol == "real" or not expert.published


def format_summary(summary: dict) -> str:
    """Means and standard errors as a small table, and what was skipped."""
    settings, skipped = summary["settings"], summary["skipped"]
    lines = [
        f"protocol {settings['protocol']}, {settings['expert']}, vshift {settings['vshift']}: "
        f"{summary['videos']} videos, {summary['rows']} rows, {len(skipped)} skipped"
    ]
    names = [name for name in summary["scores"] if name not in TRACK_COLUMNS]
    lines += [f"  {line}" for line in format_scores(summary, names)]
    lines += [f"  skipped {entry['video']}: {entry['reason']}" for entry in skipped[:SHOWN]]
    if len(skipped) > SHOWN:
        lines.append(f"  and {len(skipped) - SHOWN} more, see the .json")
    return "\n".join(lines)


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="LSE-D and LSE-C of videos.")
    add = parser.add_argument
    add("--videos", nargs="+", required=True, metavar="PATH",
        help="videos, folders of videos, .txt files with a path a line")  # fmt: skip
    add("--protocol", choices=PROTOCOLS, required=True)
    add("--out", required=True, metavar="DIR", help="where the .csv and the .json go")
    add("--syncnet_weights", default="checkpoints/syncnet_v2.model", metavar="FILE")
    add("--expert", metavar="FILE", help="a SyncNet_color to judge instead: no LSE")
    add("--audio", metavar="FILE", help="judge this sound with each video instead of its own")
    add("--vshift", type=positive, default=MAX_SHIFT, metavar="FRAMES",
        help="by which the sound is slid either way; default %(default)s as published")  # fmt: skip
    add("--batch_size", type=positive, default=BATCH, help="changes no score; default %(default)s")
    add("--device", default="auto")
    add_detector_arguments(parser, default="sfd")
    return parser


def main(args: argparse.Namespace) -> int:
    audio = [require_file(args.audio, "--audio")] if args.audio else []
    paths = dict.fromkeys(list_videos(args.videos, "--videos"))
    expert = load_expert(args.expert or args.syncnet_weights, args.device)
    if bool(args.expert) == expert.published:
        flag = "--syncnet_weights" if args.expert else "--expert"
        raise InputError(f"{expert.label.rsplit(' ', 1)[0]} is a {expert.kind}: give it as {flag}")
    detector = make_detector(args) if needs_detector(expert, args.protocol) else None
    scorer = SyncScorer(expert, args.protocol, detector, args.vshift, args.batch_size)
    table = scorer.table(args.out, args.audio or "own")
    summary = table.run([(path, [path, *audio]) for path in paths], scorer.score_video)
    print(format_summary(summary))
    print(f"{os.path.join(args.out, table.name)}.csv and .json")
    return 0 if summary["rows"] else 1


if __name__ == "__main__":
    run_cli(main, get_args_parser())
