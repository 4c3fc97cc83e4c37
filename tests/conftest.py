"""Fixtures: golden values, a small synthetic corpus preprocessed once, checkpoints, real clips."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from warm_python import REPOSITORY, run_python

import models.openvino_core  # noqa: F401  before a test imports OpenVINO

GOLDEN = Path(__file__).resolve().parent / "golden"
CORPUS = REPOSITORY.parent / "shared" / "corpus"
INPUT_ROWS: list[tuple[str, str, str]] = []  # of test_inputs.py: what, its name, what came of it
sys.path.insert(0, str(GOLDEN))  # fill.py: weights from a rule on names and shapes
# converted networks of one run of the tests, not the user's
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="wav2lip_tests_")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)
# in the background a shell lets tests ignore Ctrl-C, and with them all that they start
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if not CORPUS.is_dir():
        skip = pytest.mark.skip(reason="../shared/corpus is not here: real clips stay outside")
        for item in items:
            if "corpus" in item.keywords:
                item.add_marker(skip)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo) -> None:
    """INPUT_ROWS travel with the report, from whichever process ran the test."""
    if call.when == "call":
        item.user_properties.extend(("input", row) for row in INPUT_ROWS)
        INPUT_ROWS.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for found in terminalreporter.stats.values() for report in found]
    properties = [p for r in reports if getattr(r, "when", "") == "call" for p in r.user_properties]
    rows = sorted(tuple(value) for name, value in properties if name == "input")
    if rows:
        terminalreporter.section(f"{len(rows)} inputs and what came of them")
    for what, name, outcome in rows:
        terminalreporter.write_line(f"{what:6}  {name[:36]:36}  {outcome}")


def run_script(*argv: object, cwd: Path = REPOSITORY) -> subprocess.CompletedProcess:
    """A script (or `-m` module) run as a user does: output as text, exit code unchecked."""
    first = "-m" if argv[0] == "-m" else str(REPOSITORY / str(argv[0]))
    return run_python([first, *map(str, argv[1:])], cwd, timeout=600)


def assert_refused(result: subprocess.CompletedProcess, *words: str) -> None:
    """Exit code 2, one line on standard error, and that line says `words`."""
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    for word in words:
        assert word in lines[0]


# A training that takes a second: for the scripts' own behaviour
TINY = ("width=0.125", "batch_size=2", "syncnet_batch_size=4", "num_workers=0", "log_interval=1",
        "eval_windows=2", "keep_checkpoints=0")  # fmt: skip


def train(
    script: str, data: Path, corpus: Path, folder: Path, *extra: object, code: int = 0,
    **hparams: object,
) -> subprocess.CompletedProcess:  # fmt: skip
    """A training script run with TINY settings; checkpoints in folder/ckpt, logs in folder/runs."""
    overrides = [f"{name}={value}" for name, value in hparams.items()]
    result = run_script(
        script, "--data_root", data, "--filelists", corpus / "filelists",
        "--checkpoint_dir", folder / "ckpt", "--log_dir", folder / "runs", "--device", "cpu",
        *extra, "--hparams", *TINY, *overrides,
    )  # fmt: skip
    assert result.returncode == code, result.stderr
    return result


FACE_BOX = [10, 8, 50, 56]  # of smooth_frames


def smooth_frames(count: int = 6, side: int = 64, seed: int = 0) -> np.ndarray:
    """Smooth random pictures (count, side, side, 3) of levels 40..180: offsets do not clip."""
    import cv2

    rng = np.random.default_rng(seed)
    small = rng.uniform(40, 180, (count, 8, 8, 3)).astype(np.float32)
    return np.stack([cv2.resize(picture, (side, side)) for picture in small]).astype(np.uint8)


def write_video(path: Path, frames, fps: float = 25, seconds: float | None = None) -> str:
    """A video of frames (H, W, 3) uint8, with `seconds` of a tone where given."""
    from media.write import VideoWriter

    sound = None
    if seconds is not None:
        sound = (0.3 * np.sin(np.arange(round(16000 * seconds)) * 0.2)).astype(np.float32)
    with VideoWriter(path, fps, sound, 16000, audio_tail="keep") as writer:
        for frame in frames:
            writer.write(frame)
    return str(path)


def pixels(path: str | os.PathLike) -> np.ndarray:
    """All frames of a video, (T, H, W, 3) as plain integers, for differences."""
    from media.read import iter_frames

    return np.stack([frame for _, frame in iter_frames(path)]).astype(int)


class Poison:
    """Pickles into a call that makes a folder: a file that runs code when it is loaded."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple:
        return os.mkdir, (self.target,)


@pytest.fixture(scope="session")
def corpus() -> Path:
    """Real clips; tests that use them carry @pytest.mark.corpus."""
    return CORPUS


@pytest.fixture(scope="session")
def synthetic_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw synthetic corpus: four speakers, two clips of two seconds each."""
    from synthetic.corpus import write_corpus

    root = tmp_path_factory.mktemp("synthetic")
    write_corpus(root, speakers=4, clips_per_speaker=2, seconds=2.0, size=160, workers=1)
    return root


@pytest.fixture(scope="session")
def preprocessed_root(synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same corpus preprocessed by the script."""
    root = tmp_path_factory.mktemp("preprocessed")
    result = run_script(
        "preprocess.py", "--data_root", synthetic_root / "mvlrs_v1", "--preprocessed_root", root
    )
    assert result.returncode == 0, result.stderr
    return root


@pytest.fixture(scope="session")
def trained_expert(
    preprocessed_root: Path, synthetic_root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tiny expert after two steps."""
    folder = tmp_path_factory.mktemp("expert")
    train("color_syncnet_train.py", preprocessed_root, synthetic_root, folder, nsteps=2)
    return folder / "ckpt" / "checkpoint_step000000002.pth"


@pytest.fixture(scope="session")
def filled_generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A full-size generator in the released file format, with the golden weights."""
    import torch
    from fill import fill

    from models import create_model

    path = tmp_path_factory.mktemp("weights") / "wav2lip.pth"
    state = fill(create_model("Wav2Lip")).state_dict()
    torch.save({"state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    return path


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generator small enough for tests, with the golden rule's weights."""
    import torch
    from fill import fill

    from models import create_model
    from models.checkpoint import describe_model

    path = tmp_path_factory.mktemp("weights") / "small.pth"
    model = fill(create_model("Wav2Lip", 0.125))
    torch.save({"state_dict": model.state_dict(), "model": describe_model(model)}, path)
    return path


@pytest.fixture
def tone() -> np.ndarray:
    """One second of 440 Hz at 16 kHz, float32."""
    return (0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)).astype(np.float32)


@pytest.fixture
def boxes(tmp_path: Path):
    """A detector that finds FACE_BOX in every frame."""
    from face_detection.boxes import KnownBoxes

    (tmp_path / "boxes.json").write_text(f"[{FACE_BOX}]")
    return KnownBoxes(tmp_path / "boxes.json")


def is_deaf_to_interrupts(pid: int) -> bool:
    """Whether a process has Ctrl-C blocked."""
    (line,) = (x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigBlk" in x)
    return bool(int(line.split()[1], 16) >> (signal.SIGINT - 1) & 1)
