"""The pictures of an evaluation report: frames of its best and worst clips."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence

import numpy as np

SHOWN = 3  # best and worst clips each
COLUMNS = 8  # frames of a clip
WIDTH = 160  # px of a frame


def plot_report(sync: dict, videos, out: str) -> dict[str, str]:
    """Write the pictures into `out`; {title: file name}. sync: {"lse" or "sync": {group: summary
    with "by_video"}}; videos: report.Videos.
    """
    if not sync:
        return {}
    name, column = ("lse", "lse_d") if "lse" in sync else ("sync", "sync_distance")
    ranked = rank(sync[name]["generated"]["by_video"], column)
    made, pictures = {key: path for key, [path] in videos.groups["generated"]}, {}
    for title, keys in (("best", ranked[:SHOWN]), ("worst", ranked[::-1][:SHOWN])):
        rows = [path for key in keys for path in (videos.truth[key], made[key])]
        if rows:
            frames = [spread_frames(path, COLUMNS, WIDTH) for path in rows]
            write_sheet(frames, os.path.join(out, f"{title}.png"))
            text = f"{title} clips by {column}, true above generated: {', '.join(keys)}"
            pictures[text] = f"{title}.png"
    return pictures


def rank(by_video: dict[str, list[dict]], column: str) -> list[str]:
    """Videos with a score, lowest mean over their rows first."""
    scores = {key: [row.get(column) for row in rows] for key, rows in by_video.items()}
    scores = {key: [v for v in values if v is not None] for key, values in scores.items()}
    means = {key: float(np.mean(values)) for key, values in scores.items() if values}
    return sorted(means, key=means.get)


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
    """At most `count` frames spread evenly over a video, `width` px wide."""
    import cv2

    from media.read import iter_frames, probe

    info = probe(video)
    rate = count / max(info.duration, count / info.fps)
    frames = [frame for _, frame in itertools.islice(iter_frames(video, rate), count)]
    size = (width, max(1, round(info.height * width / info.width)))
    return [cv2.resize(frame, size, interpolation=cv2.INTER_AREA) for frame in frames]
