"""Redraw the lips in a video or photo to match any speech.

    python inference.py --checkpoint_path checkpoints/wav2lip.pth --face me.mp4 --audio speech.mp3
    python inference.py --checkpoint_path checkpoints/wav2lip.pth --face me.jpg --audio speech.wav

As a library: `LipSync("checkpoints/wav2lip.pth").run("me.mp4", "speech.mp3", "out.mp4")`.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np

from errors import InputError, require_file, run_cli

# torch, OpenCV and the detectors are imported inside the functions, so that --help answers at once

SIDES = ("TOP", "BOTTOM", "LEFT", "RIGHT")
NO_FACE_REMEDY = "give its place with --box top bottom left right, or try another --detector"
MAX_BATCH_BYTES = 256 * 2**20  # full frames waiting for the generator; 4K video gets small batches


@dataclass(frozen=True)
class Options:
    """How one face and one speech are joined; names and defaults are the released flags."""

    static: bool = False  # use the first frame only
    fps: float = 25.0  # of a still image
    pads: tuple[int, int, int, int] = (0, 10, 0, 0)  # top, bottom, left, right
    face_det_batch_size: int = 16
    wav2lip_batch_size: int = 128
    resize_factor: int = 1
    crop: tuple[int, int, int, int] = (0, -1, 0, -1)  # top, bottom, left, right; -1 = to the edge
    box: tuple[int, int, int, int] | None = None  # top, bottom, left, right: no detection
    rotate: bool = False  # 90 degrees clockwise
    nosmooth: bool = False
    paste: str = "feather"
    no_face: str = "pass"
    faithful: bool = False  # the released program, frame by frame

    def resolved(self) -> Options:
        """With `faithful` the released paste, abort on a faceless frame and video length."""
        return replace(self, paste="hard", no_face="error") if self.faithful else self


@dataclass
class Summary:
    """What was made: frames written, how many of them kept their own face, and where."""

    outfile: str
    frames: int = 0
    fps: float = 0.0
    faceless: list[tuple[int, int]] = field(default_factory=list)  # spans first..last, inclusive

    def add_faceless(self, index: int) -> None:
        if self.faceless and self.faceless[-1][1] == index - 1:
            self.faceless[-1] = (self.faceless[-1][0], index)
        else:
            self.faceless.append((index, index))


class LipSync:
    """A loaded generator and face detector.

    checkpoint: generator weights, released or trained here. detector: "centerface" (embedded),
    "sfd" (the paper's) or "boxes"; detector_options go to create_detector. Raises InputError where
    a file cannot be used.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        device: str = "auto",
        detector: str = "centerface",
        detector_options: dict | None = None,
    ) -> None:
        from checkpoint import load_model
        from training import select_device

        self.device = select_device(device)
        self.model = load_model(checkpoint, "Wav2Lip").to(self.device)
        self.img_size = self.model.img_size
        self._detector = None
        self._detector_name, self._detector_options = detector, detector_options or {}

    @property
    def detector(self) -> object:
        """Created when first used: a run with --box needs none."""
        if self._detector is None:
            from face_detection import create_detector

            self._detector = create_detector(
                self._detector_name, str(self.device), **self._detector_options
            )
        return self._detector

    def generate(self, faces: np.ndarray, mels: np.ndarray) -> np.ndarray:
        """Faces uint8 BGR (N, H, W, 3) and mel windows (N, 80, 16) -> faces that say them;
        H = W = img_size.
        """
        import torch

        with torch.inference_mode():
            face = torch.from_numpy(faces).to(self.device).permute(0, 3, 1, 2).float() / 255
            mel = torch.from_numpy(mels).to(self.device).float()[:, None]  # (N, 1, 80, 16)
            masked = face.clone()
            masked[:, :, face.shape[2] // 2 :] = 0
            frames = self.model(mel, torch.cat((masked, face), dim=1))  # (N, 3, H, W) in 0..1
            # truncated, not rounded, as in the released program
            return (frames * 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()

    def run(
        self, face: str, audio: str, outfile: str, progress: bool = False, **options
    ) -> Summary:
        """Make `outfile` from a face (picture or video) and an audio (any file with sound).

        options: see Options. Streams: memory does not grow with the video's length. Raises
        InputError, leaving no partial file, where an input cannot be used.
        """
        from audio import speech_chunks
        from media import audio_format, is_image, iter_audio, load_audio, probe
        from video_writer import VideoWriter

        opts = Options(**options).resolved()
        require_file(face, "face")
        require_file(audio, "audio")
        image = is_image(face)
        if image and not 0 < opts.fps < 1000:
            raise InputError(f"a video cannot have {opts.fps} frames a second")
        fps = opts.fps if image else probe(face).fps
        chunks = speech_chunks(load_audio(audio), fps, opts.faithful)
        rate, channels = audio_format(audio)
        sound = iter_audio(audio, rate, min(2, channels))
        summary = Summary(outfile, fps=fps)
        tail = "keep" if opts.faithful else "match"
        tracked = self._tracked(face, image, len(chunks), opts)
        with VideoWriter(outfile, fps, sound, rate, audio_tail=tail) as writer:
            for frame in self._frames(tracked, chunks, opts, summary, progress):
                writer.write(frame)
            if summary.faceless == [(0, summary.frames - 1)]:
                raise InputError(f"no face found in any frame of {face}; {NO_FACE_REMEDY}")
        return summary

    def _tracked(self, face: str, image: bool, count: int, opts: Options) -> Iterator:
        """(frame, box or None), `count` of them; a face video that is shorter starts again."""
        from face_track import face_frames

        def frames(limit: int) -> Iterator[np.ndarray]:
            source = face_frames(face, image, opts.resize_factor, opts.rotate, opts.crop)
            return itertools.islice(source, limit)

        if image or opts.static:
            frame, box = next(self._boxed(frames(1), opts))
            if box is None:
                raise InputError(f"no face found in {face}; {NO_FACE_REMEDY}")
            yield from ((frame.copy(), box) for _ in range(count))
            return
        boxes: list = []  # of the first pass: 4 integers a frame, detected and smoothed once
        # frames beyond the speech are dropped before smoothing, as in the released program
        for frame, box in self._boxed(frames(count), opts):
            boxes.append(box)
            yield frame, box
        done = len(boxes)
        while done < count:
            for frame, box in zip(frames(count - done), boxes, strict=False):
                done += 1
                yield frame, box

    def _boxed(self, frames: Iterator[np.ndarray], opts: Options) -> Iterator:
        from face_track import checked_box, track_faces

        if opts.box is not None:
            return ((frame, checked_box(opts.box, *frame.shape[:2])) for frame in frames)
        return track_faces(
            frames, self.detector, opts.pads, opts.face_det_batch_size, not opts.nosmooth
        )

    def _frames(
        self, tracked: Iterator, chunks: list, opts: Options, summary: Summary, progress: bool
    ) -> Iterator:
        """Finished frames, batch by batch; frames without a face pass through."""
        from tqdm import tqdm

        from face_track import batched, crop_face, paste_face

        bar = tqdm(total=len(chunks), unit="frame", disable=not (progress and sys.stderr.isatty()))
        first, tracked = _peek(tracked)
        size = max(1, min(opts.wav2lip_batch_size, MAX_BATCH_BYTES // first[0].nbytes))
        for batch in batched(zip(tracked, chunks, strict=False), size):
            found = [(frame, box, mel) for (frame, box), mel in batch if box is not None]
            if found:
                crops = np.stack([crop_face(frame, box, self.img_size) for frame, box, _ in found])
                generated = self.generate(crops, np.stack([mel for _, _, mel in found]))
                for (frame, box, _), face in zip(found, generated, strict=True):
                    paste_face(frame, face, box, opts.paste)
            for (frame, box), _ in batch:
                if box is None:
                    if opts.no_face == "error":
                        raise InputError(
                            f"no face in frame {summary.frames}; give --box or --no_face pass"
                        )
                    summary.add_faceless(summary.frames)
                summary.frames += 1
                yield frame
            bar.update(len(batch))
        bar.close()


def _peek(items: Iterator) -> tuple:
    first = next(items)
    return first, itertools.chain([first], items)


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Redraw the lips in a video or photo to match any speech."
    )
    add = parser.add_argument
    # fmt: off
    add("--checkpoint_path", required=True, help="generator weights")
    add("--face", "--image", required=True, help="video or picture with a face")
    add("--audio", required=True, help="speech: any audio file, or a video with sound")
    add("--outfile", "--output", default="results/result_voice.mp4",
        help=".mp4, .mov (H.264, AAC) or .mkv (lossless); default %(default)s")
    add("--static", type=_bool, nargs="?", const=True, default=False,
        help="use the first video frame only")
    add("--fps", type=float, default=25.0, help="frames a second where the face is a picture")
    add("--pads", nargs=4, type=int, default=[0, 10, 0, 0], metavar=SIDES,
        help="grow the detected face, to take in the chin; default 0 10 0 0")
    add("--face_det_batch_size", type=_positive, default=16)
    add("--wav2lip_batch_size", type=_positive, default=128)
    add("--resize_factor", type=_positive, default=1, help="divide both sides of the video by this")
    add("--crop", nargs=4, type=int, default=[0, -1, 0, -1], metavar=SIDES,
        help="use this part of the frame; -1 = to the edge; after --resize_factor and --rotate")
    add("--box", nargs=4, type=int, default=[-1, -1, -1, -1], metavar=SIDES,
        help="the face's place in every frame, instead of detection")
    add("--rotate", action="store_true", help="turn the video 90 degrees clockwise")
    add("--nosmooth", action="store_true", help="do not smooth face boxes over time")
    add("--faithful", action="store_true", help="frames exactly as the released program makes them")
    add("--paste", choices=("feather", "hard"), default="feather",
        help="edge of the new face; default %(default)s")
    add("--no_face", choices=("pass", "error"), default="pass",
        help="a frame without a face passes unchanged, or is an error; default %(default)s")
    add("--detector", choices=("centerface", "sfd", "boxes"), default="centerface")
    add("--s3fd_weights", help="weights of --detector sfd; default checkpoints/s3fd.pth")
    add("--boxes", help="JSON with known boxes, for --detector boxes")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    # fmt: on
    return parser


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def _bool(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "1", "yes")


def detector_options(args: argparse.Namespace) -> dict:
    """What create_detector takes beside name and device, from --s3fd_weights and --boxes."""
    if args.detector == "boxes":
        if not args.boxes:
            raise InputError("--detector boxes needs --boxes FILE.json")
        return {"path": args.boxes}
    return {"weights": args.s3fd_weights} if args.detector == "sfd" else {}


def main(args: argparse.Namespace) -> None:
    require_file(args.face, "face")  # before torch and the weights take their time
    require_file(args.audio, "audio")
    lipsync = LipSync(args.checkpoint_path, args.device, args.detector, detector_options(args))
    options = {name: getattr(args, name) for name in Options.__dataclass_fields__}
    options["box"] = None if args.box[0] == -1 else tuple(args.box)
    summary = lipsync.run(args.face, args.audio, args.outfile, progress=True, **options)
    for first, last in summary.faceless:
        print(f"no face in frames {first}..{last}: left as they are", file=sys.stderr)
    print(f"{summary.outfile}: {summary.frames} frames at {summary.fps:g} fps")


if __name__ == "__main__":
    run_cli(main, get_args_parser())
