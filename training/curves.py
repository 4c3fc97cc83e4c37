"""A run's numbers read back (metrics.jsonl), and drawn: a panel for each, a line for each run."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

from errors import InputError, require_file
from media.files import read_records, replacing

HIDDEN = ("step", "time", "split")
COLUMNS = 4
MOST_POINTS = 2000  # of a line; a run of days has more
PAUSE = 600  # seconds without a line after which a run was stopped, unless it never has more


def read_metrics(folder: str, split: str | None = None) -> list[dict]:
    """The lines of a run's metrics.jsonl, those of one split if named; a line that a killed run
    left unfinished is skipped. InputError where the file is missing or something else.
    """
    path = require_file(os.path.join(folder, "metrics.jsonl"), "log")
    lines = [line for line in read_records(path) if isinstance(line.get("step"), int)]
    if not lines:
        raise InputError(f"no line of numbers in {path}: it is no metrics.jsonl")
    return [line for line in lines if split in (None, line.get("split"))]


def worked_hours(lines: Sequence[dict]) -> list[float]:
    """Hours that a run had worked at each of its lines, counted from the first; while it was
    stopped it did not.
    """
    waits = np.diff([line.get("time", 0.0) for line in lines])
    usual = np.median(waits) if len(waits) else 0.0
    waits = np.where(waits > max(PAUSE, 10 * usual), usual, waits.clip(0))
    return (np.concatenate(([0.0], waits.cumsum())) / 3600).tolist()


def plot_curves(
    runs: dict[str, str], path: str, names: Sequence[str] | None = None, hours: bool = False
) -> None:
    """Draw runs (name -> folder) into a PNG: training thin, validation with dots. names: which
    numbers, by default all there are. hours: against hours of work, not steps.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    logs = {run: read_metrics(folder) for run, folder in runs.items()}
    found = dict.fromkeys(name for lines in logs.values() for line in lines for name in line)
    names = list(names or [name for name in found if name not in HIDDEN])
    places = {
        run: worked_hours(lines) if hours else [line["step"] for line in lines]
        for run, lines in logs.items()
    }
    rows = -(-len(names) // COLUMNS)
    size = (4.2 * min(COLUMNS, len(names)), 3.1 * rows)
    figure, axes = plt.subplots(
        rows, min(COLUMNS, len(names)), figsize=size, layout="constrained", squeeze=False
    )
    for axis, name in zip(axes.flat, names, strict=False):
        for number, (run, lines) in enumerate(logs.items()):
            for split, style in (("train", {"lw": 0.8, "alpha": 0.6}), ("val", {"marker": "o"})):
                points = [(x, line[name]) for x, line in zip(places[run], lines, strict=True)
                          if line.get("split") == split and name in line]  # fmt: skip
                points = points[:: max(1, len(points) // MOST_POINTS)]
                if points:
                    label = f"{run} {split}" if len(runs) > 1 else split
                    axis.plot(*zip(*points, strict=True), color=f"C{number}", ms=3, label=label,
                              **style)  # fmt: skip
        axis.set(title=name, xlabel="hours" if hours else "step")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=7)
    for axis in axes.flat[len(names) :]:
        axis.set_axis_off()
    with replacing(path, "wb") as file:
        figure.savefig(file, dpi=110, format="png")
    plt.close(figure)
