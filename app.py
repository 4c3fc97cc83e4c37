"""A web page for inference: a face and a speech go in, the video comes out beside the original.

    pip install -r requirements-app.txt
    python app.py --checkpoint_path checkpoints/wav2lip.pth

Then open http://127.0.0.1:7860. Only this machine can reach it unless --host says otherwise; there
is no password: put a proxy with HTTPS and a login before a page for others (browsers give
microphone and camera to HTTPS or localhost only). One job at a time, the others wait. Uploads are
deleted when their job ends, results when their user's next job begins, when the page is closed, or
after an hour; all is in one temporary folder, which goes with the server.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from errors import InputError, run_cli
from inference import add_model_arguments, create_lipsync
from options import positive

EXAMPLES = Path(__file__).resolve().parent / "data" / "app_examples"
EXAMPLE_SEED = 7  # faces and voices that no demo trains on
EXAMPLE_SECONDS = 3.0
REMEDY = "`make demo` trains a small one, data/demo/checkpoints/wav2lip/*.pth"


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="A web page for inference.")
    # fmt: off
    add = parser.add_argument
    add("--host", default="127.0.0.1",
        help="address to listen at; 0.0.0.0 lets others in; default %(default)s")
    add("--port", type=positive, default=7860, help="default %(default)s")
    add("--max_mb", type=positive, default=200, help="of one upload; default %(default)s")
    add("--max_seconds", type=positive, default=120,
        help="of a face video and of a speech; default %(default)s")
    # fmt: on
    add_model_arguments(parser)
    for action in parser._actions:
        if action.dest == "checkpoint_path":
            action.required = False  # where it is missing, main says how to get one
    return parser


def make_examples(folder: Path) -> dict[str, str]:
    """Paths of a face video, a photo of it and another's voice in `folder`; made where missing."""
    from files import replacing

    paths = {name: folder / name for name in ("face.mp4", "photo.jpg", "voice.wav")}
    if not all(path.is_file() for path in paths.values()):
        import cv2

        from audio import save_wav
        from synthetic import FPS, SAMPLE_RATE, synthesize_clip
        from video_writer import VideoWriter

        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"examples cannot be written: {folder} ({error.strerror})") from error
        frames, wave, _ = synthesize_clip(EXAMPLE_SEED, 0, 1, EXAMPLE_SECONDS, (256,))
        with VideoWriter(paths["face.mp4"], FPS, wave, SAMPLE_RATE) as writer:
            for frame in frames:
                writer.write(frame)
        with replacing(paths["photo.jpg"], "wb") as file:
            file.write(cv2.imencode(".jpg", frames[0])[1])
        _, wave, _ = synthesize_clip(EXAMPLE_SEED, 1, 1, EXAMPLE_SECONDS, (64,))
        with replacing(paths["voice.wav"], "wb") as file:
            save_wav(wave, file)
    return {path.stem: str(path) for path in paths.values()}


@contextlib.contextmanager
def serving(lipsync, args: argparse.Namespace, examples: Path = EXAMPLES) -> Iterator[str]:
    """The page's address, while it is served. args: host, port, max_mb, max_seconds.

    Raises MissingPackage without gradio, InputError where the address cannot be had.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported
    from app_jobs import Jobs
    from app_page import build_page, launch

    shown = make_examples(examples)
    with tempfile.TemporaryDirectory(prefix="wav2lip_app_", ignore_cleanup_errors=True) as root:
        served = Path(root, "served")
        os.environ["GRADIO_TEMP_DIR"] = str(served)  # where gradio keeps uploads
        jobs = Jobs(lipsync, Path(root), examples, args.max_seconds)
        page = build_page(jobs, shown, args.max_mb)
        try:
            yield launch(page, args.host, args.port, args.max_mb)
        finally:
            page.close(verbose=False)


def main(args: argparse.Namespace) -> None:
    if not args.checkpoint_path:
        raise InputError(f"no generator: give --checkpoint_path; {REMEDY}")
    if not os.path.exists(args.checkpoint_path):
        raise InputError(f"checkpoint not found: {args.checkpoint_path}; {REMEDY}")
    from backends import require_package

    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    require_package("gradio", "the web page", "-r requirements-app.txt")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with serving(create_lipsync(args), args) as address:
        print(f"open {address} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    run_cli(main, get_args_parser())
