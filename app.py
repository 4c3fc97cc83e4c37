"""A web page for inference: a face and a speech go in, the video comes out beside the original.

    pip install -r requirements-app.txt
    python app.py

Then open http://127.0.0.1:7860. Only this machine can reach it unless --host says otherwise; there
is no password: put a proxy with HTTPS and a login before a page for others (browsers give
microphone and camera to HTTPS or localhost only). One job at a time, the others wait. Uploads are
deleted when their job ends, results when their user's next job begins, when the page is closed, or
after an hour; all is in one temporary folder, which goes with the server, or, where that was
killed, when the next one starts.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from errors import require_file, require_package, run_cli
from lipsync.engine import add_model_arguments, create_lipsync
from lipsync.options import positive

SAMPLES = Path(__file__).resolve().parent / "samples"
FOLDER = "wav2lip_app_"  # with a random end, in the system's folder for temporary files
RESULT_AGE = 3600  # seconds after which results, and uploads that no job took, are deleted
SWEEP = 300  # seconds between two looks for such files
EXAMPLE_SECONDS = 3  # of the voice


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
    return parser


def make_examples(folder: Path) -> dict[str, str]:
    """Paths of a face video, a photo of it and another's voice, made of the samples in `folder`."""
    import cv2

    from audio import save_wav
    from media.read import iter_frames, load_audio

    paths = {name: folder / name for name in ("face.mp4", "photo.jpg", "voice.wav")}
    folder.mkdir()
    shutil.copy(SAMPLES / "face.mp4", folder)
    _, frame = next(iter_frames(SAMPLES / "face.mp4"))
    paths["photo.jpg"].write_bytes(cv2.imencode(".jpg", frame)[1])
    save_wav(load_audio(SAMPLES / "voice.mp4")[: EXAMPLE_SECONDS * 16000], paths["voice.wav"])
    return {path.stem: str(path) for path in paths.values()}


def warm_up(backend) -> None:
    """Do now what takes seconds of the first job, in which it could not be stopped.

    backend: None where it is to be calibrated on that job (--int8).
    """
    import numpy as np

    from audio import melspectrogram

    melspectrogram(np.zeros(16000, np.float32))
    if backend is not None:
        for still in (False, True):
            backend.warm_up(still)


@contextlib.contextmanager
def private_folder() -> Iterator[Path]:
    """A folder that only this server uses and that goes with it; those of killed servers go first.

    A living server holds a lock, which dies with it however it ends; what it serves it makes after
    it has the lock.
    """
    from filelock import FileLock, Timeout

    with tempfile.TemporaryDirectory(prefix=FOLDER, ignore_cleanup_errors=True) as own:
        root = Path(own)
        for folder in (path.parent for path in root.parent.glob(f"{FOLDER}*/served")):
            # a link, or another user's, is none of ours; or another server that starts was faster
            with contextlib.suppress(Timeout, FileNotFoundError):
                if not folder.is_symlink() and folder.stat().st_uid == root.stat().st_uid:
                    with FileLock(folder / "lock", timeout=0):
                        shutil.rmtree(folder / "served")
                    shutil.rmtree(folder)
        with FileLock(root / "lock"):
            (root / "served").mkdir()
            yield root


def sweep(served: Path, age: float) -> None:
    """Delete all files that nobody has written to for `age` seconds.

    gradio's delete_cache knows nothing of uploads that broke off.
    """
    for path in [path for path in served.rglob("*") if path.is_file()]:
        with contextlib.suppress(FileNotFoundError):  # its job was faster
            if time.time() - path.stat().st_mtime >= age:
                path.unlink()


def _sweep_until(ended: threading.Event, served: Path) -> None:
    while not ended.wait(SWEEP):
        sweep(served, RESULT_AGE)


@contextlib.contextmanager
def serving(lipsync, args: argparse.Namespace) -> Iterator[str]:
    """The page's address, while it is served. args: host, port, max_mb, max_seconds.

    InputError where the address cannot be had.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before gradio is imported
    from page.jobs import Jobs
    from page.layout import CSS, build_page
    from page.serve import launch

    with private_folder() as root:
        served, ended = root / "served", threading.Event()
        os.environ["GRADIO_TEMP_DIR"] = str(served)  # where gradio keeps uploads
        examples = make_examples(root / "examples")
        page = build_page(Jobs(lipsync, root, args.max_seconds), examples, args.max_mb)
        threading.Thread(target=_sweep_until, args=(ended, served), daemon=True).start()
        try:
            yield launch(page, args.host, args.port, args.max_mb, CSS)
        finally:
            ended.set()
            page.close(verbose=False)


def main(args: argparse.Namespace) -> None:
    from models.shipped import generator_path

    args.checkpoint_path = require_file(generator_path(args.checkpoint_path), "checkpoint")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    require_package("gradio", "the web page", "-r requirements-app.txt")
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    lipsync = create_lipsync(args)
    warm_up(lipsync.backend)
    with serving(lipsync, args) as address:
        print(f"open {address} (Ctrl-C ends it)", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    run_cli(main, get_args_parser())
