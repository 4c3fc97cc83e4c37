"""The notebooks run from top to bottom on small data, and are kept without what they print."""

from __future__ import annotations

import json
import math
import os

import nbformat
import pytest
from conftest import REPOSITORY
from nbclient import NotebookClient

from media.read import count_frames

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def run_notebook(name: str, **parameters) -> list[dict]:
    """Its outputs, with other values than in the cell tagged "parameters", as papermill does it."""
    notebook = nbformat.read(REPOSITORY / "notebooks" / name, as_version=4)
    index = next(
        number for number, cell in enumerate(notebook.cells)
        if "parameters" in cell.metadata.get("tags", ())
    )  # fmt: skip
    source = "\n".join(f"{key} = {value!r}" for key, value in parameters.items())
    notebook.cells.insert(index + 1, nbformat.v4.new_code_cell(source))
    folder = {"metadata": {"path": str(REPOSITORY / "notebooks")}}
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources=folder).execute()
    if keep := os.environ.get("KEEP_NOTEBOOKS"):
        nbformat.write(notebook, os.path.join(keep, name))
    return [output for cell in notebook.cells for output in cell.get("outputs", ())]


def kinds(outputs: list[dict], kind: str) -> list[str]:
    return [output["data"][kind] for output in outputs if kind in output.get("data", ())]


def printed(outputs: list[dict], stream: str = "stdout") -> str:
    return "".join(output["text"] for output in outputs if output.get("name") == stream)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)
    assert cells[0].metadata["tags"] == ["parameters"]
    assert notebook.metadata.kernelspec.name == "python3"
    assert "/home/" not in path.read_text() and set(notebook.metadata) <= {
        "kernelspec", "language_info",
    }  # fmt: skip


def test_demo_as_it_stands(tmp_path):
    out = tmp_path / "made" / "out.mp4"
    outputs = run_notebook("demo.ipynb", outfile=str(out))
    assert f"{count_frames(str(out), 25.0)} frames at 25" in printed(outputs)
    assert "Synthetic video" in printed(outputs)
    assert len(kinds(outputs, "image/png")) == 2
    players = "".join(kinds(outputs, "text/html"))
    assert "<audio" in players and "data:video/mp4;base64," in players


def write_metrics(folder, steps: int, train: dict, val: dict) -> str:
    """A run's log as training writes it. train, val: name -> its value at a step."""
    folder.mkdir(parents=True)
    with open(folder / "metrics.jsonl", "w") as file:
        for step in range(100, steps + 1, 100):
            for split, names in (("train", train), ("val", val)):
                scores = {name: value(step) for name, value in names.items()}
                file.write(
                    json.dumps({"step": step, "time": step, "split": split, **scores}) + "\n"
                )
    return str(folder)


def test_training_curves(tmp_path):
    def falling(start, end):
        return lambda step: end + (start - end) * math.exp(-step / 500)

    train = {"loss": falling(0.69, 0.2), "accuracy": falling(0.5, 1), "grad_norm": falling(3, 1)}
    scores = {name: falling(0.5, 0.9) for name in ("accuracy", "auc", "cos_pos", "cos_neg")}
    shifts = {f"accuracy_shift_{n}": falling(0.5, 0.6 + n / 40) for n in (1, 2, 3, 5, 10)}
    val = {"loss": falling(0.69, 0.25), **scores, **shifts}
    parts = {"l1": falling(0.2, 0.03), "l1_mouth": falling(0.2, 0.04), "sync": falling(3, 0.2)}
    gate = {"syncnet_wt": lambda step: 0.01 * (step > 900), "gate": lambda step: 1.0 * (step > 900)}
    outputs = run_notebook(
        "training_curves.ipynb",
        experts={n: write_metrics(tmp_path / n, 2000, train, val) for n in ("one", "two")},
        generators={"g": write_metrics(tmp_path / "g", 2000, {**parts, "total": parts["l1"]},
                                       {**parts, **gate})},
        out=str(tmp_path / "pictures"),
    )  # fmt: skip
    assert len(kinds(outputs, "image/png")) == 4
    assert "two, step 2000: loss 0.25" in printed(outputs)
    assert "g: gate seen open at step 1000" in printed(outputs)
    assert not printed(outputs, "stderr")


def write_report(folder, name: str, distances: dict[str, float]) -> None:
    """What the notebook reads of a report; distances: of its clips, by our own expert."""
    import cv2
    import numpy as np

    def group(shift: float) -> dict:
        return {"by_video": {k: [{"sync_distance": d + shift}] for k, d in distances.items()}}

    (folder / "scores").mkdir(parents=True)
    groups = {"generated": group(0.1), "real": group(0), "wrong sound": group(0.5)}
    groups["generated"]["by_video"]["lost"] = []
    report = {"name": name, "pairs": 4, "sync": {"sync": groups},
              "pictures": {"best clips": "best.png"}}  # fmt: skip
    (folder / "report.json").write_text(json.dumps(report))
    cv2.imwrite(str(folder / "best.png"), np.zeros((8, 8, 3), np.uint8))
    (folder / "scores/lips_generator0.csv").write_text("video,follows,leak\na,0.9,0.1\nb,,0.2\n")
    (folder / "scores/quality_own_sound.csv").write_text("video,psnr,psnr_mouth\na,30,25.5\n")
    (folder / "report.md").write_text(
        "# Evaluation\n\n**x**: the lips follow the video.\n\n## All measures\n\n| a |\n|---|\n| 1 "
        "|\n\nThe end.\n\n## The paper's table\n\nnot shown\n"
    )


def test_results(tmp_path):
    distances = {"a": 0.7, "b": 0.5, "c": 0.9}
    for name in ("x/one", "two"):
        write_report(tmp_path / "both" / name.replace("/", "_"), name, distances)
    both = tmp_path / "both"
    (both / "report.json").write_text(json.dumps({"names": ["x/one", "two"]}))
    (both / "report.md").write_text((both / "two/report.md").read_text())
    run = write_metrics(tmp_path / "run", 500, {"loss": math.sqrt}, {"loss": math.sqrt})
    outputs = run_notebook("results.ipynb", report=str(both), runs={"run": run},
                           out=str(tmp_path / "pictures"))  # fmt: skip
    assert len(kinds(outputs, "image/png")) == 4  # spread, two sheets, hours
    assert "x/one, two; 4 pairs" in printed(outputs)
    assert "two: 3 of 4 clips have a sync_distance\n  0.600  b\n  0.800  a\n  1.000  c\n" in (
        printed(outputs)
    )
    said = "".join(kinds(outputs, "text/markdown"))
    assert "**x**" in said and "The end." in said and "not shown" not in said
    assert not printed(outputs, "stderr")
