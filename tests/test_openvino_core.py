"""OpenVINO and NNCF are imported in one place, which keeps them from reporting home."""

import ast
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from test_layers import modules
from warm_python import run_python

HOME = "models.openvino_core"
PACKAGES = ("openvino", "nncf")
IMPORTERS = ("import_module", "require_package", "__import__")  # that take a name
# what is loaded of the package that reports, and of those that would use it
SHOWN = """
import sys
loaded = [name for name, module in sys.modules.items() if module]
print([name for name in loaded if name.startswith("openvino_telemetry")],
      *(name for name in ("openvino", "nncf") if name in loaded))
"""
NETWORK = """
import sys
import numpy as np
from backends.api import create_backend, open_backend
faces, mels = np.zeros((2, 96, 96, 3), np.uint8), np.zeros((2, 80, 16), np.float32)
"""
WAYS = {
    "inference": """
from lipsync.engine import LipSync
LipSync(sys.argv[1], "cpu", cache_dir="none").backend.generate(faces, mels)
""",
    "cache": """
for _ in range(2):
    open_backend(sys.argv[1], "cpu", "auto", sys.argv[2]).generate(faces, mels)
""",
    "int8": """
from backends.quantize import quantized
quantized(open_backend(sys.argv[1], "cpu", "auto", sys.argv[2]), [(faces, mels)])
""",
    "export": """
from backends.__main__ import get_args_parser, main
argv = ["export", "--checkpoint_path", sys.argv[1], "--out", sys.argv[2] + "/small.xml"]
main(get_args_parser().parse_args(argv))
open_backend(sys.argv[2] + "/small.xml").generate(faces, mels)
""",
    "detector": """
from face_detection import create_detector
create_detector("centerface", "cpu").detect(faces)
""",
}


def imports(tree: ast.AST) -> list[str]:
    """OpenVINO or NNCF, as often as a file imports them where it runs."""
    found = []
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        names = []
        if isinstance(node, ast.Import):
            names = [name.name for name in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(IMPORTERS):
            names = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        found += [name for name in names if name.split(".")[0] in PACKAGES] + imports(node)
    return found


def test_no_other_file_imports_them():
    files = {name: path for name, path in modules().items() if name != HOME}
    trees = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in files.items()}
    assert not {name: found for name, tree in trees.items() if (found := imports(tree))}
    guilty = ("import openvino.tools", "from nncf import x", "def f():\n import openvino as ov",
              "errors.require_package('nncf', 'x', 'y')")  # fmt: skip
    assert all(imports(ast.parse(text)) for text in guilty)


@pytest.mark.parametrize("way", WAYS)
def test_what_reports_home_is_never_loaded(way, weights, tmp_path):
    for package in ("openvino", *["nncf"] * (way == "int8")):
        pytest.importorskip(package)
    command = [sys.executable, "-c", NETWORK + WAYS[way] + SHOWN, str(weights), str(tmp_path)]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    expected = "[] openvino nncf" if way == "int8" else "[] openvino"
    assert result.stdout.splitlines()[-1:] == [expected], result.stderr


def test_nor_in_the_processes_of_the_tests(tmp_path):
    pytest.importorskip("openvino")
    script = tmp_path / "shown.py"
    script.write_text(SHOWN)
    assert run_python([str(script)], tmp_path, 300).stdout.startswith("[] openvino")
    assert sys.modules["openvino_telemetry"] is None  # conftest.py
