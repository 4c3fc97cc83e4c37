"""The generator and the face detector, loaded, and the way of a face and a speech through them.

`LipSync("checkpoints/wav2lip.pth").run("me.mp4", "speech.mp3", "out.mp4")`
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from backends.api import NAMES
from backends.base import Backend
from errors import InputError, require_file
from face_detection import DETECTORS, create_detector
from face_detection.arguments import add_detector_arguments, detector_options
from lipsync.options import Options, positive
from models.shipped import SAMPLE_FACE, SAMPLE_VOICE

# torch, OpenCV and the detectors are imported inside the functions, so that --help answers at once

DEFAULT_DETECTOR = "centerface"  # embedded
CHECKED = 64  # of a face's first frames: half of them calibrate int8, half check it
SHIPPED = 32  # frames of the sample that calibrate int8, too
SILENT = 1e-3  # -60 dBFS; in a frame that talks the network would follow that frame's own lips
CLOSEUP = 4  # times as large as what the network draws: worth a word
logger = logging.getLogger(__name__)
Report = Callable[[str, int, int], None]  # stage, frames done, frames in all


@dataclass
class Summary:
    """What was made: frames written, how many of them kept their own face, and where."""

    outfile: str
    frames: int = 0
    fps: float = 0.0
    faceless: list[tuple[int, int]] = field(default_factory=list)  # spans first..last, inclusive


class LipSync:
    """A loaded generator and face detector.

    checkpoint: generator weights, released or trained here, or a network exported of them (.onnx,
    .xml). backend: see backends/api.py; int8: its network in 8 bits (OpenVINO), calibrated once,
    checked on every face. detector: one of face_detection.DETECTORS; detector_options go to
    create_detector. cache_dir: where converted networks are kept: "user", the user's cache folder,
    another, or "none". Raises InputError where a file cannot be used.
    """

    def __init__(
        self,
        checkpoint: str | os.PathLike,
        device: str = "auto",
        detector: str = DEFAULT_DETECTOR,
        detector_options: dict | None = None,
        backend: str = "auto",
        int8: bool = False,
        cache_dir: str = "user",
    ) -> None:
        from backends.api import open_backend
        from models.device import device_name

        self.device = device_name(device)
        found = open_backend(
            checkpoint, self.device, backend, None if cache_dir == "none" else cache_dir
        )
        self.img_size, self._auto = found.img_size, backend == "auto"
        self._float = found  # what int8 is made of and checked against
        if int8 and found.name != "openvino":
            raise InputError("--int8 needs the openvino back end on the CPU, and no .onnx")
        # None: int8, checked on every face; a network read from a file may be that already
        self.backend = None if int8 and found.precision == "float32" else found
        self._detector = None
        self._detector_name, self._detector_options = detector, detector_options or {}
        files = (self._detector_options.get(name) for name in ("path", "weights"))
        self.files = [checkpoint, *files]  # that no output may replace

    @property
    def detector(self) -> object:
        """Created when first used: a run with --box needs none."""
        if self._detector is None:
            self._detector = create_detector(
                self._detector_name, str(self.device), **self._detector_options
            )
        if self._detector_name == "boxes":
            self._detector.reset()  # every run begins with the first frame
        return self._detector

    def find(
        self, face: str, opts: Options, count: int, report: Report | None = None, live: bool = False
    ):
        """The FaceSource of a picture or video for `count` frames of speech, with its reference.
        The network that will draw it, `live` or not, starts beside the search.
        """
        from backends.quantize import find_int8
        from lipsync.reference import find_reference
        from lipsync.source import find_source, source_fps
        from media.picture import is_image

        if self.draws_int8(live):
            threading.Thread(target=find_int8, args=(self._float,)).start()
        else:
            self.backend.start(opts.static or is_image(face))
        key = {"detector": self._detector_name, **self._detector_options}
        if opts.track and self._detector_name != "boxes":
            key["tracked"] = max(1, round(source_fps(face, opts) / opts.det_every))

        def finder() -> object:
            from face_detection.tracked import TrackedDetector

            every = key.get("tracked")
            return TrackedDetector(self.detector, every) if every else self.detector

        source = find_source(face, opts, count, finder, key, report)
        source.reference = find_reference(source, self.img_size, self._picture_detector)
        stretch = source.face_size() / self.img_size
        if stretch >= CLOSEUP:
            logger.warning(
                "%s: the face is %.1f times as large as the network's %d pixels and will look "
                "soft: --resize_factor %d, --enhance or a network of larger faces helps",
                face, stretch, self.img_size, round(stretch / 2),
            )  # fmt: skip
        return source

    def _picture_detector(self) -> object:
        """For a picture other than the face that is driven, of which "boxes" knows nothing."""
        if self._detector_name != "boxes":
            return self.detector
        return create_detector(DEFAULT_DETECTOR, str(self.device))

    def run(
        self, face: str, audio: str, outfile: str,
        report: Report | None = None, **options,
    ) -> Summary:  # fmt: skip
        """Make `outfile` from a face (picture or video) and an audio (any file with sound).

        options: see Options. report: told ("faces", frames looked at, frames in all) while the face
        is searched, then ("lips", frames written, frames in all); what it raises ends the run.
        Streams: memory does not grow with the video's length. Raises InputError, leaving no partial
        file, where an input cannot be used.
        """
        from tqdm import tqdm

        from media.read import audio_format, iter_audio
        from media.write import SYNTHETIC, VideoWriter

        opts, fps, chunks = self.listen(face, audio, outfile, options)
        rate, channels = audio_format(audio)
        sound = iter_audio(audio, rate, min(2, channels), picture=os.path.samefile(face, audio))
        tail = "keep" if opts.faithful else "match"
        summary = Summary(outfile, fps=fps)
        with contextlib.ExitStack() as stack:
            writer = stack.enter_context(
                VideoWriter(outfile, fps, sound, rate, audio_tail=tail, comment=SYNTHETIC)
            )
            source = self.find(face, opts, len(chunks), report)
            summary.faceless = source.faceless(len(chunks))
            for first, last in summary.faceless if opts.progress else ():
                print(f"no face in frames {first}..{last}: left as they are", file=sys.stderr)
            total = len(source.order(len(chunks)))
            hidden = not (opts.progress and sys.stderr.isatty())
            frames = stack.enter_context(contextlib.closing(self.frames(source, chunks)))
            if report:
                report("lips", 0, total)
            for frame in tqdm(frames, "lips", total, unit="frame", disable=hidden):
                writer.write(frame)
                summary.frames += 1
                if report:
                    report("lips", summary.frames, total)
        return summary

    def listen(
        self, face: str, audio: str, outfile: str, options: dict
    ) -> tuple[Options, float, list[np.ndarray]]:
        """The options, the output's frames a second and a mel window (80, 16) for each frame.
        InputError where a file is not there, or `outfile` would replace one.
        """
        from audio import speech_chunks
        from lipsync.source import source_fps
        from media.files import keep_inputs
        from media.read import load_audio

        opts = Options(**options).resolved()
        require_file(face, "face")
        require_file(audio, "audio")
        keep_inputs(outfile, face, audio, opts.reference, *self.files)
        fps = source_fps(face, opts)
        # where it is not the face's file its own picture is not seen
        wav = load_audio(audio, picture=os.path.samefile(face, audio))
        if np.abs(wav).max() < SILENT and opts.reference == "same" and not opts.faithful:
            logger.warning("%s is silent: the lips rest, by --reference rest", audio)
            opts = replace(opts, reference="rest")
        chunks = speech_chunks(wav, fps, opts.faithful, opts.drop_last, opts.silence_gate)
        return opts, fps, chunks

    def frames(
        self, source, chunks: Sequence[np.ndarray], picks: Sequence[int] | None = None
    ) -> Iterator[np.ndarray]:
        """Finished frames, uint8 BGR (H, W, 3), one for each mel window (80, 16) of `chunks`.

        picks: only the frames with these numbers; no other goes through the network. Decoding, the
        network, and what the caller does with the frames run at the same time.
        """
        from face_detection.track import batched
        from lipsync.enhance import enhanced
        from media.streams import ahead

        opts = source.opts
        painter = Painter(source, self.backend or self.int8_of(source, chunks))
        with contextlib.ExitStack() as stack:
            shown = source.frames(len(chunks), picks)
            first = next(shown)
            chunks = chunks if picks is None else [chunks[index] for index in picks]
            size = self._batch_size(first[0], opts)
            shown = stack.enter_context(ahead(itertools.chain([first], shown), size))
            # a generator's own stage: its items are lists, one a batch
            batches = batched(zip(shown, chunks, strict=False), size)
            made = map(painter.faces, batches)
            if opts.enhance:
                faces = itertools.chain.from_iterable(made)
                made = ([item] for item in enhanced(faces, opts.enhance, opts.enhance_size))
            for batch in stack.enter_context(ahead(made, 1)):
                for (frame, box), face in batch:
                    yield painter.paste(frame, box, face)

    def draws_int8(self, live: bool) -> bool:
        """Whether in 8 bits: as asked, or live with --backend auto where such a network is kept."""
        from backends.quantize import has_int8

        return self.backend is None or (
            live and self._auto and self.backend is self._float and has_int8(self._float)
        )

    def int8_of(self, source, chunks: Sequence[np.ndarray]) -> Backend:
        """The back end for this face and speech: 8 bits, calibrated on its first frames and the
        sample's where the cache has no such network, or float32 where the check finds it too far
        off. `source`, `chunks`: as of `frames`.
        """
        from backends.quantize import find_int8, quantized
        from lipsync.source import find_source

        if self.backend and not find_int8(self._float):  # not asked for, and not to be read
            return self.backend

        def sample() -> Iterator[tuple]:
            if SAMPLE_FACE.is_file() and SAMPLE_VOICE.is_file():
                finder, key = self._picture_detector, {"detector": "any"}
                found = find_source(str(SAMPLE_FACE), Options(), SHIPPED, finder, key)
                yield from self._batches(found, sample_speech(found.fps), SHIPPED)

        return quantized(self._float, self._batches(source, chunks, CHECKED), sample)

    def _batches(self, source, chunks: Sequence[np.ndarray], count: int) -> list[tuple]:
        """(faces, mels, reference) of the first `count` faces, as Backend.generate takes them."""
        from face_detection.track import batched, crop_face

        shown = zip(source.frames(len(chunks)), chunks, strict=False)
        seen = itertools.islice(((f, b, mel) for (f, b), mel in shown if b is not None), count)
        crops = ((crop_face(f, b, self.img_size), mel) for f, b, mel in seen)
        return [(*map(np.stack, zip(*b, strict=True)), source.reference) for b in batched(crops, 8)]

    def _batch_size(self, frame: np.ndarray, opts: Options) -> int:
        """As asked, but less for large frames and for networks of larger faces."""
        from media.streams import frames_at_once

        asked = opts.wav2lip_batch_size * 96**2 // self.img_size**2
        return frames_at_once(frame, asked)


class Painter:
    """Draws the new faces of a FaceSource with a back end, and puts them into its frames."""

    def __init__(self, source, backend: Backend) -> None:
        from lipsync.paste import ColorMatch

        self.backend, self._source = backend, source
        self._colour = ColorMatch() if source.opts.match_color else None
        self._features: object = None  # of a still face, found once

    def faces(self, batch: Sequence[tuple]) -> list[tuple]:
        """((frame, box), new face (S, S, 3) or None where there is no box) of each of a batch of
        ((frame, box), mel window (80, 16)).
        """
        found = [(*item, mel) for item, mel in batch if item[1] is not None]
        faces = iter(self._draw(*zip(*found, strict=True)) if found else ())
        return [(item, None if item[1] is None else next(faces)) for item, _ in batch]

    def _draw(self, frames: Sequence, boxes: Sequence, mels: Sequence) -> np.ndarray:
        from face_detection.track import crop_face

        backend, reference, mels = self.backend, self._source.reference, np.stack(mels)
        if self._source.still:
            if self._features is None:
                crop = crop_face(frames[0], boxes[0], backend.img_size)
                self._features = backend.prepare(crop, reference)
            return backend.generate_still(self._features, mels)
        crops = [crop_face(*at, backend.img_size) for at in zip(frames, boxes, strict=True)]
        return backend.generate(np.stack(crops), mels, reference)

    def paste(self, frame: np.ndarray, box, face: np.ndarray | None) -> np.ndarray:
        """The frame, in which its new face and its mark are put."""
        from lipsync.mark import draw_mark
        from lipsync.paste import paste_face

        opts = self._source.opts
        if face is not None:
            paste_face(frame, face, box, opts.paste, opts.mask, self._colour)
        if opts.mark:
            draw_mark(frame, opts.mark)
        return frame


def sample_speech(
    fps: float, path: str | os.PathLike = SAMPLE_VOICE, seconds: float = 4.0
) -> list[np.ndarray]:
    """Mel windows, one a video frame, of the beginning of a voice: of the one in samples/."""
    from audio import speech_chunks
    from media.read import load_audio

    return speech_chunks(load_audio(path)[: round(16000 * seconds)], fps, faithful=False)


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of LipSync, shared with realtime.py."""
    # fmt: off
    add = parser.add_argument
    add("--checkpoint_path", metavar="FILE",
        help="generator weights, .pth, or a network that python -m backends export wrote, .onnx or "
        ".xml; default: the weights that ship, checkpoints/open.pth")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    add("--backend", choices=NAMES, default="auto",
        help="what runs the network; auto: the fastest that is installed")
    add("--int8", action="store_true",
        help="compute in 8 bits (OpenVINO on the CPU): calibrated once, checked on each face; "
        "float32 where the frames would differ visibly")
    add("--cache_dir", default="user", metavar="FOLDER",
        help="where converted networks are kept; none: nowhere; default: the user's cache folder")
    add_detector_arguments(parser, DETECTORS)
    add("--det_size", type=positive,
        help="search frames scaled down to this longer side; default: the detector's own")
    add("--boxes", help="JSON with known boxes, for --detector boxes")


def create_lipsync(args: argparse.Namespace) -> LipSync:
    """The LipSync that the flags of add_model_arguments describe."""
    from models.shipped import generator_path

    return LipSync(
        generator_path(args.checkpoint_path), args.device, args.detector, detector_options(args),
        args.backend, args.int8, args.cache_dir,
    )  # fmt: skip
