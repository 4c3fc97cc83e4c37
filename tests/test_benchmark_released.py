"""`benchmark.py released`, on a stand-in with the names and flags of the released checkout."""

import json
import re
import sys
from pathlib import Path

import pytest

import benchmark
import inference
from benchmarks.released import command_peak
from errors import InputError

PROGRAM = """
import argparse
parser = argparse.ArgumentParser()
for flag in ("--checkpoint_path", "--face", "--audio", "--outfile"):
    parser.add_argument(flag, required=True)
parser.add_argument("--box", nargs="+", type=int)
args = parser.parse_args()
if not args.box:
    from face_detection import FaceAlignment
    found = FaceAlignment().get_detections_for_batch([0, 0])
    open("found.txt", "w").write(str(found))
open("temp/result.avi", "w").write("made")
"""
DETECTOR = """
import os
from face_detection.detection.sfd import sfd_detector
class FaceAlignment:
    def __init__(self):
        path = os.path.join(os.path.dirname(__file__), "detection/sfd/s3fd.pth")
        self.state = {} if os.path.isfile(path) else sfd_detector.load_url("https://a.b/c")
    def get_detections_for_batch(self, images):
        assert not self.state or self.state["a_mbox_conf.bias"].tolist() == [10, 10, 10, 0]
        assert not self.state or self.state["other.bias"].tolist() == [2, 2]
        return ["its own"] * len(images)
"""
NETWORK = """
import numpy as np
class s3fd:
    def state_dict(self):
        return {"a_mbox_conf.weight": np.full((4, 2), 2), "a_mbox_conf.bias": np.full(4, 2),
                "other.bias": np.full(2, 2)}
"""


@pytest.fixture
def checkout(tmp_path):
    sfd = tmp_path / "Wav2Lip" / "face_detection" / "detection" / "sfd"
    sfd.mkdir(parents=True)
    (tmp_path / "Wav2Lip" / "inference.py").write_text(PROGRAM)
    (sfd.parent.parent / "__init__.py").write_text(DETECTOR)
    (sfd / "net_s3fd.py").write_text(NETWORK)
    (sfd / "sfd_detector.py").write_text("def load_url(url): raise OSError('no network')")
    return tmp_path / "Wav2Lip"


def measure(*argv):
    benchmark.main(benchmark.get_args_parser().parse_args(["released", *map(str, argv)]))


@pytest.mark.parametrize("trained", [False, True])
def test_both_programs_in_turns(
    checkout, trained, weights, synthetic_root, tmp_path, monkeypatch, capsys
):
    ran, folders = [], set()

    def watched(command, folder):
        folders.add(folder)
        if str(checkout / "inference.py") in command:
            ran.append("released")
            result = command_peak(command, folder)
            if "--box" not in command:
                ran[-1] += " " + Path(folder, "found.txt").read_text()
            return result
        args = inference.get_args_parser().parse_args(command[2:])
        assert Path(args.checkpoint_path) == weights and args.cache_dir.startswith(folder)
        ran.append(f"ours {args.int8} {args.box[0] >= 0}")
        Path(folder, args.outfile).write_text("made")
        return 7.0, 0, ""

    monkeypatch.setattr("benchmarks.released.command_peak", watched)
    if trained:
        (checkout / "face_detection/detection/sfd/s3fd.pth").write_text("weights")
    before = sorted(checkout.rglob("*"))
    video, report = next(synthetic_root.glob("mvlrs_v1/main/*/*.mp4")), tmp_path / "report.json"
    measure("--repo", checkout, "--face", video, "--audio", video, "--checkpoint_path", weights,
            "--seconds", 0.4, "--repeats", 1, "--int8", "--json", report)  # fmt: skip
    assert sorted(checkout.rglob("*")) == before and len(folders) == 1
    ours = ["ours False False", "ours False True", "ours True False", "ours True True"]
    found = "released ['its own', 'its own']" if trained else ran[4]
    assert ran == [*ours, found, "released", *ours]
    assert trained or re.fullmatch(r"released \[(\(\d+, \d+, \d+, \d+\)), \1\]", found)
    out, content = capsys.readouterr().out, json.loads(report.read_text())
    assert ("Random weights in its detector" in out) is not trained
    assert content["frames"] == 10 and len(content["runs"]) == 6
    for row in content["runs"]:
        assert row["frames_per_second"] == pytest.approx(10 / row["seconds"])
        assert row["speedup"] == 1 if row["program"] == "released" else row["peak_mb"] == 7
    assert "| ours, int8 " in out


def test_what_ends_it(checkout, weights, synthetic_root, tmp_path):
    video = next(synthetic_root.glob("mvlrs_v1/main/*/*.mp4"))
    argv = ("--face", video, "--audio", video, "--checkpoint_path", weights, "--seconds", 0.4)
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(InputError, match="is no checkout of the released code: it has no inf"):
            measure("--repo", folder, *argv)
    with pytest.raises(InputError, match="belong together"):
        measure("--repo", checkout, "--face", video)
    with pytest.raises(InputError, match="--python is not found: /nowhere"):
        measure("--repo", checkout, *argv, "--python", "/nowhere")


def test_a_program_that_fails_is_quoted(tmp_path):
    code = "import sys; x = bytearray(2**26); print('first'); sys.exit('at last')"
    peak, exit_code, said = command_peak([sys.executable, "-c", code], str(tmp_path))
    assert (exit_code, said) == (1, "at last") and peak > 0
    assert command_peak([sys.executable, "-c", ""], str(tmp_path))[1:] == (0, "nothing was said")
