"""The house: what lies in the root, who imports whom, no circles. import-linter (`make lint`) holds
the rooms to the rows in pyproject.toml; it reads no single files, so the root's are held here.

    python tests/test_layers.py     # counts rooms, arrows and floors
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SCRIPTS = ("preprocess", "color_syncnet_train", "wav2lip_train", "hq_wav2lip_train", "inference",
           "realtime", "app", "benchmark")  # fmt: skip
SHARED = ("hparams", "audio", "datasets", "errors")
ROOMS = sorted(path.parent.name for path in REPOSITORY.glob("*/__init__.py"))
FLOORS = 10


def modules() -> dict[str, Path]:
    paths = [
        *REPOSITORY.glob("*.py"),
        *(p for room in ROOMS for p in REPOSITORY.glob(f"{room}/*.py")),
    ]
    names = (".".join(path.relative_to(REPOSITORY).with_suffix("").parts) for path in paths)
    return dict(zip((name.removesuffix(".__init__") for name in names), paths, strict=True))


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The project's modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            inner = [f"{node.module}.{name.name}" for name in node.names]
            yield from (name if name in known else node.module for name in inner)


def arrows() -> dict[str, set[str]]:
    """Module -> the modules that it imports."""
    known = modules()
    return {name: set(imported(path, known)) - {name} for name, path in known.items()}


def floors(graph: dict[str, set[str]]) -> dict[str, int]:
    """How many stand below each, itself included; graphlib.CycleError names a circle."""
    found: dict[str, int] = {}
    for name in TopologicalSorter(graph).static_order():
        found[name] = 1 + max((found[other] for other in graph[name]), default=0)
    return found


def rooms(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The same by room; a file of the root is a room of its own."""
    found: dict[str, set[str]] = {}
    for name, others in graph.items():
        room = name.split(".")[0]
        found.setdefault(room, set()).update({other.split(".")[0] for other in others} - {room})
    return found


def rows() -> dict[str, int]:
    """Room or file -> its row in pyproject.toml, the top one being 0."""
    text = (REPOSITORY / "pyproject.toml").read_text()
    layers = re.search(r"^layers = \[\n(.*?)^\]", text, re.M | re.S)[1]
    found = re.findall(r'"""(.*?)"""|"(.*?)"', layers, re.S)
    names = [re.findall(r"\w+", long or short) for long, short in found]
    return {name: number for number, row in enumerate(names) for name in row}


def test_the_root_holds_the_scripts_and_what_all_share():
    assert {path.stem for path in REPOSITORY.glob("*.py")} == {*SCRIPTS, *SHARED}
    assert set(rows()) == {*SCRIPTS, *SHARED, *ROOMS}, "a room without a row in pyproject.toml"


@pytest.mark.parametrize("name", [*SCRIPTS, *SHARED])
def test_a_file_of_the_root_imports_lower_rows_only(name):
    row = rows()
    wrong = [other for other in rooms(arrows())[name] if row[other] <= row[name]]
    assert not wrong


def test_there_are_no_circles_and_few_floors():
    graph = arrows()
    floors(graph)  # of files
    assert max(floors(rooms(graph)).values()) <= FLOORS


if __name__ == "__main__":
    house = rooms(arrows())
    for room, floor in sorted(floors(house).items(), key=lambda item: -item[1]):
        print(f"floor {floor:2}  {room} -> {', '.join(sorted(house[room]))}")
    print(f"{len(house)} rooms and root files, {sum(map(len, house.values()))} arrows, no circle")
