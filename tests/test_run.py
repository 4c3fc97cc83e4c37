"""What runs without torch: exported networks, and weights whose networks are in the cache."""

import json
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from conftest import REPOSITORY, assert_refused, pixels

import app
from backends.__main__ import get_args_parser, main
from backends.api import open_backend
from errors import InputError
from inference import LipSync

pytest.importorskip("openvino")
FACE, SPEECH = REPOSITORY / "samples" / "face.mp4", REPOSITORY / "samples" / "voice.mp4"
NOT_IN_RUN = (
    "torch",
    "torchvision",
    "librosa",
    "scipy",
    "scenedetect",
    "skimage",
    "nncf",
    "yaml",
    "onnx",
)
BLOCKED = f"""
import runpy, sys
for name in {NOT_IN_RUN!r}: sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run_blocked(*argv):
    command = [sys.executable, "-c", BLOCKED, *map(str, argv)]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=500)


def export(weights, out):
    main(get_args_parser().parse_args(
        ["export", "--checkpoint_path", str(weights), "--out", str(out)]
    ))  # fmt: skip
    return out


@pytest.fixture(scope="module")
def speech(tmp_path_factory):
    from audio import load_wav, save_wav

    path = tmp_path_factory.mktemp("speech") / "short.wav"
    save_wav(load_wav(SPEECH)[:9600], path)
    return path


@pytest.fixture(scope="module")
def expected(weights, speech, tmp_path_factory):
    out = tmp_path_factory.mktemp("torch") / "out.mkv"
    LipSync(weights, "cpu", backend="torch").run(str(FACE), str(speech), str(out))
    return pixels(out)


@pytest.mark.parametrize("ending", ["xml", "onnx"])
def test_an_exported_network_runs_without_torch(weights, speech, expected, tmp_path, ending):
    if ending == "onnx":
        pytest.importorskip("onnxscript")
    network, out = export(weights, tmp_path / f"small.{ending}"), tmp_path / "out.mkv"
    result = run_blocked("inference.py", "--checkpoint_path", network, "--face", FACE, "--audio",
                         speech, "--outfile", out)  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert np.abs(pixels(out).astype(int) - expected).max() <= 1
    if ending == "onnx":  # on its own runtime, too
        one = np.zeros((1, 96, 96, 3), np.uint8), np.zeros((1, 80, 16), np.float32)
        made = [open_backend(network, "cpu", name).generate(*one) for name in ("onnx", "auto")]
        assert np.abs(made[0].astype(int) - made[1]).max() <= 1


def test_weights_whose_networks_are_kept_need_no_torch(weights, speech, expected, tmp_path):
    argv = ("--checkpoint_path", weights, "--face", FACE, "--audio", speech, "--cache_dir",
            tmp_path / "kept", "--outfile")  # fmt: skip
    refused = run_blocked("inference.py", *argv, tmp_path / "none.mkv")
    assert refused.returncode == 2 and "a .pth needs torch" in refused.stderr
    LipSync(weights, "cpu", cache_dir=tmp_path / "kept").run(
        str(FACE), str(speech), str(tmp_path / "cold.mkv")
    )
    result = run_blocked("inference.py", *argv, tmp_path / "warm.mkv")
    assert result.returncode == 0, result.stderr
    warm = pixels(tmp_path / "warm.mkv")
    assert (warm == pixels(tmp_path / "cold.mkv")).all()
    assert np.abs(warm.astype(int) - expected).max() <= 1
    # a still face has networks of its own
    still = run_blocked("inference.py", *argv, tmp_path / "still.mkv", "--static")
    assert_refused(still, "a .pth needs torch")


def test_live_runs_without_torch(weights, speech, tmp_path):
    network = export(weights, tmp_path / "small.xml")
    result = run_blocked("realtime.py", "--checkpoint_path", network, "--face", FACE, "--audio",
                         speech, "--outfile", tmp_path / "out.mkv")  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert re.search(r"^ready\nnetwork: openvino [\d.]+, float32, CPU$", result.stderr, re.M)


def test_files_that_are_no_network(weights, tmp_path):
    network = export(weights, tmp_path / "small.xml")
    (tmp_path / "page.xml").write_text("<html></html>")
    (tmp_path / "cut.onnx").write_bytes(b"\x08\x09")
    for name in ("page.xml", "cut.onnx"):
        with pytest.raises(InputError, match=f"{name} is not what python -m backends export"):
            open_backend(tmp_path / name)
    with pytest.raises(InputError, match="needs the openvino back end"):
        open_backend(network, "cpu", "torch")
    network.with_suffix(".bin").unlink()
    with pytest.raises(InputError, match="is not what"):
        open_backend(network)


def test_the_dockerfile_names_what_is_there():
    """It is not built here: its files exist, its program takes its flags."""
    text = (REPOSITORY / "Dockerfile").read_text()
    (copied,) = re.findall(r"^COPY (\S+) \.$", text, re.M)[:1]
    assert (REPOSITORY / copied).is_file() and f"--no-deps -r {copied}" in text
    entry = json.loads(re.search(r"^ENTRYPOINT (.*)$", text, re.M)[1])
    script, *argv = json.loads(re.search(r"^CMD (.*)$", text, re.M)[1])
    args = app.get_args_parser().parse_args(argv)
    assert (entry, script, args.host) == (["python"], "app.py", "0.0.0.0")
    assert f"--out {args.checkpoint_path}\n" in text
    export_line = re.search(r"python -m backends (export .*)$", text, re.M)[1]
    get_args_parser().parse_args(shlex.split(export_line))
    assert "\nUSER user\n" in text
