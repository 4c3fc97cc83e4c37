"""The pictures of an evaluation report: histograms of the sync scores, best and worst clips."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np

SHOWN = 3  # best and worst clips each
COLUMNS = 8  # frames of a clip
WIDTH = 160  # px of a frame
COLOURS = {"generated": "tab:blue", "real": "tab:green", "wrong sound": "tab:red"}


def plot_report(sync: dict, videos, out: str) -> dict[str, str]:
    """Write the pictures into `out`; {title: file name}. sync: {"lse" or "sync": {group: summary
    with "by_video"}}; videos: report.Videos.
    """
    pictures = {}
    for name, groups in sync.items():
        columns = ("lse_d", "lse_c") if name == "lse" else ("sync_distance", "sync_confidence")
        file = f"{name}_histogram.png"
        plot_histograms(groups, columns, os.path.join(out, file))
        pictures[f"{columns[0]} and {columns[1]}"] = file
    if sync:
        name = "lse" if "lse" in sync else "sync"
        column = "lse_d" if name == "lse" else "sync_distance"
        ranked = rank(sync[name]["generated"]["by_video"], column)
        made = dict(videos.generated)
        for title, keys in (("best", ranked[:SHOWN]), ("worst", ranked[::-1][:SHOWN])):
            rows = [path for key in keys for path in (videos.truth[key], made[key])]
            if rows:
                file = f"{title}.png"
                frames = [spread_frames(path, COLUMNS, WIDTH) for path in rows]
                write_sheet(frames, os.path.join(out, file))
                text = ", ".join(keys)
                pictures[f"{title} clips by {column}, true above generated: {text}"] = file
    return pictures


def rank(by_video: dict[str, list[dict]], column: str) -> list[str]:
    """Videos with a score, lowest mean over their rows first."""
    means = {}
    for key, rows in by_video.items():
        values = [row[column] for row in rows if row.get(column) is not None]
        if values:
            means[key] = float(np.mean(values))
    return sorted(means, key=means.get)


def plot_histograms(groups: dict[str, dict], columns: Sequence[str], path: str) -> None:
    """One histogram a column, all groups in it, with the same bins."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(columns), 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, column in zip(figure.subplots(1, len(columns)), columns, strict=True):
        values = {
            group: [
                row[column] for rows in summary["by_video"].values() for row in rows
                if row.get(column) is not None
            ]
            for group, summary in groups.items()
        }  # fmt: skip
        every = np.concatenate([np.asarray(v, float) for v in values.values()])
        if not len(every):
            continue
        bins = np.linspace(every.min(), every.max() + 1e-6, 25)
        for group, found in values.items():
            label = f"{group} ({len(found)})"
            axes.hist(found, bins, alpha=0.5, label=label, color=COLOURS[group])
        axes.set_xlabel(column)
        axes.legend()
    figure.savefig(path, metadata={"Software": None})


def write_sheet(rows: Sequence[Sequence[np.ndarray]], path: str, together: int = 2) -> None:
    """Rows of pictures of one size as one picture, as wide as the shortest; a gap between groups of
    `together` rows.
    """
    import cv2

    columns = min(len(row) for row in rows)
    strips = []
    for number, row in enumerate(rows):
        if number and number % together == 0:
            strips.append(np.full((12, strips[-1].shape[1], 3), 255, np.uint8))
        strips.append(np.hstack(row[:columns]))
    cv2.imwrite(path, np.vstack(strips))


def spread_frames(video: str, count: int, width: int) -> list[np.ndarray]:
    """`count` frames spread evenly over a video, `width` px wide; read once to count them."""
    import cv2

    from media.read import count_frames, iter_frames, probe

    info = probe(video)
    total = count_frames(video, info.fps)
    wanted = list(np.linspace(0, total - 1, count).round().astype(int))
    size = (width, max(1, round(info.height * width / info.width)))
    shown = {}
    for index, (_, frame) in enumerate(iter_frames(video, info.fps)):
        if index in wanted:
            shown[index] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return [shown[index] for index in wanted]
