"""Turn talking-face videos into training clips: face crops, 16 kHz audio, mel spectrogram.

    python preprocess.py --data_root mvlrs_v1/main --preprocessed_root lrs2_preprocessed --ngpu 4

Every video becomes `<preprocessed_root>/<dir>/<video>/` with `<frame>.jpg`, `audio.wav`, `mel.npy`
and `clip.json`. A clip's folder appears only when it is complete; run the command again after an
interruption and it goes on with what is missing.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import shutil
import sys
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass

from errors import InputError, run_cli

# OpenCV, torch and the detectors are imported inside the functions, so that --help answers at once

FPS = 25  # of the training clips, whatever the source's rate
JPEG_QUALITY = 95
VIDEO_ENDINGS = (
    ".mp4",
    ".mpg",
    ".mpeg",
    ".avi",
    ".mov",
    ".mkv",
    ".webm",
    ".m4v",
    ".flv",
    ".ts",
    ".wmv",
)


@dataclass(frozen=True)
class Result:
    """What became of one video: error is None where its clip is complete."""

    name: str
    frames: int = 0
    faces: int = 0
    skipped: bool = False
    error: str | None = None


def find_videos(data_root: str) -> list[tuple[str, str]]:
    """(clip name, path) of every video below data_root, sorted. The name is `dir/video`.

    In LRS2's top folder (mvlrs_v1) only `main` is used (paper section 4). Two files that would
    become one clip are an error.
    """
    if not os.path.isdir(data_root):
        raise InputError(f"--data_root is not a folder: {data_root}")
    if os.path.basename(os.path.normpath(data_root)) == "mvlrs_v1":
        data_root = os.path.join(data_root, "main")
    found: dict[str, str] = {}
    for folder, _, names in os.walk(data_root):
        for name in names:
            stem, ending = os.path.splitext(name)
            if ending.lower() not in VIDEO_ENDINGS or name.startswith("."):
                continue
            path = os.path.join(folder, name)
            clip = os.path.join(os.path.relpath(folder, data_root), stem)
            if clip.startswith("./"):  # videos right in data_root: its own name serves as <dir>
                clip = os.path.join(os.path.basename(os.path.abspath(data_root)), stem)
            if clip in found:
                raise InputError(f"{found[clip]} and {path} would become one clip; rename one")
            found[clip] = path
    if not found:
        raise InputError(f"no video ({' '.join(VIDEO_ENDINGS)}) below {data_root}")
    return sorted(found.items())


def process_clip(
    name: str, video: str, preprocessed_root: str, detector, batch_size: int
) -> Result:
    """One video into one clip folder, written beside its place and then renamed.

    Raises InputError where the video gives no clip (no audio, no face, not decodable).
    """
    folder = os.path.join(preprocessed_root, name)
    if os.path.exists(os.path.join(folder, "clip.json")):
        return Result(name, skipped=True)
    temporary = folder + ".part"
    shutil.rmtree(temporary, ignore_errors=True)  # of a run that was killed
    os.makedirs(temporary)
    try:
        seconds = _write_audio(video, temporary)  # first: a video without sound is refused quickly
        boxes = _write_faces(video, temporary, detector, batch_size)
        faces = sum(box is not None for box in boxes)
        if not faces:
            raise InputError(f"no face in any of {len(boxes)} frames: {video}")
        record = {
            "source": video,
            "fps": FPS,
            "frames": len(boxes),
            "faces": faces,
            "seconds": round(seconds, 3),
            "detector": detector.name,
            "boxes": boxes,
        }
        with open(os.path.join(temporary, "clip.json"), "w", encoding="utf-8") as file:
            json.dump(record, file)
        os.rename(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return Result(name, len(boxes), faces)


def _write_audio(video: str, folder: str) -> float:
    """audio.wav (aligned to the first frame) and mel.npy (T, 80); returns the seconds of sound."""
    import numpy as np

    from audio import load_wav, melspectrogram, save_wav

    wav = load_wav(video)
    save_wav(wav, os.path.join(folder, "audio.wav"))
    np.save(os.path.join(folder, "mel.npy"), melspectrogram(wav).T)
    return len(wav) / 16000


def _write_faces(video: str, folder: str, detector, batch_size: int) -> list[list[int] | None]:
    """The best face of every frame as <frame>.jpg; returns its box x1, y1, x2, y2, or None."""
    import cv2
    import numpy as np

    from face_track import batched, padded_box
    from media import iter_frames

    boxes: list[list[int] | None] = []
    for batch in batched((frame for _, frame in iter_frames(video, FPS)), batch_size):
        for frame, found in zip(batch, detector.detect(np.stack(batch)), strict=True):
            box = padded_box(found[0], (0, 0, 0, 0), *frame.shape[:2]) if found else None
            if box is not None:
                x1, y1, x2, y2 = box
                path = os.path.join(folder, f"{len(boxes)}.jpg")
                quality = [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY]
                if not cv2.imwrite(path, frame[y1:y2, x1:x2], quality):
                    raise OSError(f"cannot write {path}")
            boxes.append(None if box is None else list(box))
    return boxes


class Detectors:
    """One detector for each worker: detectors are not shared among threads."""

    def __init__(self, args: argparse.Namespace) -> None:
        import cv2

        from face_detection import create_detector
        from inference import detector_options

        self.per_clip = args.detector == "boxes"  # known boxes lie beside each video
        self._create = create_detector
        self._idle: queue.SimpleQueue = queue.SimpleQueue()
        self.workers = args.ngpu or args.workers
        if not args.ngpu:  # the workers are the parallelism: more threads would fight over cores
            cv2.setNumThreads(max(1, (os.cpu_count() or 1) // self.workers))
        for worker in range(0 if self.per_clip else self.workers):
            device = f"cuda:{worker}" if args.ngpu else "cpu"
            self._idle.put(create_detector(args.detector, device, **detector_options(args)))

    def process(self, name: str, video: str, args: argparse.Namespace) -> Result:
        """process_clip with a detector that is free; its faults become the Result's error."""
        detector = None
        try:
            if self.per_clip:
                path = os.path.splitext(video)[0] + ".json"
                detector = self._create("boxes", path=path)
            else:
                detector = self._idle.get()
            return process_clip(name, video, args.preprocessed_root, detector, args.batch_size)
        except (InputError, OSError, ValueError, RuntimeError, MemoryError) as error:
            return Result(name, error=" ".join(str(error).split()) or type(error).__name__)
        finally:
            if detector is not None and not self.per_clip:
                self._idle.put(detector)


def report(results: Iterable[Result], seconds: float, preprocessed_root: str) -> int:
    """Print what was done, write failures.tsv, and return the number of failures."""
    results = list(results)
    done = [result for result in results if result.error is None and not result.skipped]
    failed = sorted((result for result in results if result.error), key=lambda result: result.name)
    frames, faces = sum(r.frames for r in done), sum(r.faces for r in done)
    skipped = sum(result.skipped for result in results)
    rate = f" ({len(done) / seconds:.2f} clips/s, {frames / seconds:.0f} frames/s)" if done else ""
    print(
        f"{len(done)} clips done in {seconds:.0f} s{rate}, "
        f"{skipped} were finished before, {len(failed)} failed"
    )
    if frames:
        print(f"{frames} frames, a face in {faces} ({100 * faces / frames:.2f}%)")
    path = os.path.join(preprocessed_root, "failures.tsv")
    if failed:
        with open(path, "w", encoding="utf-8") as file:
            file.writelines(f"{result.name}\t{result.error}\n" for result in failed)
        for result in failed[:10]:
            print(f"failed: {result.name}: {result.error}")
        if len(failed) > 10:
            print(f"... and {len(failed) - 10} more: {path}")
    elif os.path.exists(path):
        os.remove(path)
    return len(failed)


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Turn talking-face videos into training clips.")
    add = parser.add_argument
    add("--data_root", required=True, help="folder of videos, e.g. mvlrs_v1/main")
    add("--preprocessed_root", required=True, help="where the clips go")
    add("--ngpu", type=int, help="GPUs to use; 0 = CPU; default: all there are")
    add(
        "--workers",
        type=int,
        default=os.cpu_count() or 1,
        help="threads where there is no GPU; default %(default)s",
    )
    add(
        "--batch_size",
        type=int,
        default=32,
        help="frames in a detection batch; default %(default)s",
    )
    add(
        "--detector",
        choices=("centerface", "sfd", "boxes"),
        default="centerface",
        help="sfd is the paper's and needs weights; boxes reads <video>.json; default %(default)s",
    )
    add("--s3fd_weights", help="weights of --detector sfd; default checkpoints/s3fd.pth")
    add("--strict", action="store_true", help="exit with 1 if any video failed")
    return parser


def main(args: argparse.Namespace) -> int:
    videos = find_videos(args.data_root)
    if min(args.batch_size, args.workers) < 1 or (args.ngpu or 0) < 0:
        raise InputError("--batch_size and --workers must be at least 1, --ngpu at least 0")
    if args.ngpu is None:
        args.ngpu = _gpus()
    try:
        os.makedirs(args.preprocessed_root, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {args.preprocessed_root}: {error.strerror}") from error
    from tqdm import tqdm

    detectors = Detectors(args)
    start, results = time.monotonic(), []
    pool = ThreadPoolExecutor(detectors.workers)
    try:
        futures = [pool.submit(detectors.process, *video, args) for video in videos]
        bar = tqdm(
            as_completed(futures), total=len(futures), unit="clip", disable=not sys.stderr.isatty()
        )
        failures = 0
        for future in bar:
            results.append(future.result())
            failures += results[-1].error is not None
            bar.set_postfix(failed=failures)
    finally:
        pool.shutdown(cancel_futures=True)
    failed = report(results, time.monotonic() - start, args.preprocessed_root)
    if failed == len(videos):
        reason = Counter(result.error for result in results).most_common(1)[0][0]
        raise InputError(f"all {failed} videos failed, most with: {reason}")
    return 1 if failed and args.strict else 0


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


if __name__ == "__main__":
    run_cli(main, get_args_parser())
