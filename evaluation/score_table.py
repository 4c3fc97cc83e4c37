"""Scores of many videos as they are made: a log that survives a kill, then CSV and JSON.

    table = ScoreTable("results/eval", "lse_lrs", ("lse_d", "lse_c"), {"protocol": "lrs"})
    summary = table.run([("clip", ["clip.mp4"])], score)  # score("clip.mp4") -> {"lse_d": 6.4, ...}

Every metric of evaluation/ keeps its scores in one.
"""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from errors import InputError
from media.files import add_record, read_records, replacing, stamp, write_json


class ScoreTable:
    """Rows of named scores by video, in `<folder>/<name>.jsonl`, finished as `.csv` and `.json`.

    settings: what the scores depend on (protocol, parameters, weights; JSON values). A log that was
    begun with other settings is put aside (`.jsonl.old`), so that rows never mix. A video counts as
    done while its files are those that were scored (by size and time of change). The seconds that
    it took are kept with it.
    """

    def __init__(
        self, folder: str | os.PathLike, name: str, columns: Sequence[str], settings: dict
    ) -> None:
        self.folder, self.name, self.columns = os.fspath(folder), name, tuple(columns)
        self.settings = json.loads(json.dumps(settings))
        self._entries: dict[str, dict] = {}  # by video, the last one counts
        os.makedirs(self.folder, exist_ok=True)
        self._log = self._path("jsonl")
        head = {"settings": self.settings, "columns": list(self.columns)}
        records = read_records(self._log)
        if records[:1] == [head]:
            self._entries = {entry["video"]: entry for entry in records[1:]}
            return
        if len(records) > 1:
            os.replace(self._log, self._log + ".old")
        elif os.path.exists(self._log):
            os.remove(self._log)
        add_record(self._log, head)

    def _path(self, suffix: str) -> str:
        return os.path.join(self.folder, f"{self.name}.{suffix}")

    def has(self, video: str, files: Sequence[str | os.PathLike]) -> bool:
        """Whether `video` was scored or skipped and none of its `files` has changed since."""
        entry = self._entries.get(video)
        return entry is not None and entry["stamp"] == [stamp(path) for path in files]

    def run(
        self, items: Sequence[tuple], score: Callable, progress: bool = True,
        skip: type[InputError] = InputError,
    ) -> dict:  # fmt: skip
        """Score what is not there yet, and `finish`.

        items: (video, its files, further arguments...). score(*files, *further) gives a row, or a
        list of rows where a video has several; what it raises of the kind `skip` is kept as the
        reason why there is none. progress: a bar, on a terminal.
        """
        from tqdm import tqdm

        quiet = None if progress else True
        for video, files, *further in tqdm(items, self.name, unit="video", disable=quiet):
            if self.has(video, files):
                continue
            began, why = time.monotonic(), {}
            try:
                rows = score(*files, *further)
            except skip as error:
                rows, why = [], {"reason": " ".join(str(error).split())}
            rows = [rows] if isinstance(rows, dict) else rows
            self.keep(video, files, rows, time.monotonic() - began, **why)
        return self.finish([video for video, *_ in items])

    def keep(
        self, video: str, files: Sequence[str | os.PathLike], rows: list[dict],
        seconds: float = 0.0, **why: str,
    ) -> None:  # fmt: skip
        """Keep the rows of a video's scores, of several where it has several face tracks; or none,
        and the `reason`.
        """
        for row in rows:
            if unknown := set(row) - set(self.columns):
                raise ValueError(f"{self.name} has no columns {sorted(unknown)}")
        entry = {"video": video, "stamp": [stamp(path) for path in files], "rows": rows, **why}
        entry["seconds"] = round(seconds, 3)
        self._entries[video] = entry
        add_record(self._log, entry)

    def finish(self, videos: Sequence[str] | None = None) -> dict:
        """Write the CSV (a row each, by video) and the JSON, and return what the JSON holds.

        videos: those that count, in this order; all by default. {"settings", "videos", "rows",
        "seconds" that they took, "skipped": [{"video", "reason"}], "scores": {column: {"mean",
        "median", "standard_error", "n"}}}; a column without any number is null in "scores".
        """
        entries = [self._entries[v] for v in (sorted(self._entries) if videos is None else videos)]
        rows = [{"video": e["video"], **row} for e in entries for row in e["rows"]]
        with replacing(self._path("csv")) as file:
            writer = csv.DictWriter(file, ("video", *self.columns), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        summary = {
            "settings": self.settings,
            "videos": sum(bool(e["rows"]) for e in entries),
            "rows": len(rows),
            "seconds": sum(e["seconds"] for e in entries),
            "skipped": [{n: e[n] for n in ("video", "reason")} for e in entries if "reason" in e],
            "scores": {name: _statistics([row.get(name) for row in rows]) for name in self.columns},
        }
        write_json(self._path("json"), summary, indent=2)
        return summary

    def rows(self, video: str) -> list[dict]:
        """The scores of one video."""
        return self._entries[video]["rows"]


def write_results(stem: str, text: str, content: object) -> None:
    """<stem>.md and <stem>.json: what was found, as words and as numbers."""
    write_json(f"{stem}.json", content, indent=2)
    with replacing(f"{stem}.md") as file:
        file.write(text)


def mean_text(found: dict | None, digits: int = 3) -> str:
    """A column's mean +- its standard error, "-" where it has no number."""
    if found is None:
        return "-"
    error = found["standard_error"]
    return f"{found['mean']:.{digits}f}" + ("" if error is None else f" +- {error:.{digits}f}")


def format_scores(summary: dict, names: Iterable[str]) -> list[str]:
    """A line for each of the named columns."""
    scores = {name: summary["scores"][name] for name in names}
    counts = {name: f"  (n = {found['n']})" if found else "" for name, found in scores.items()}
    return [f"{name:22} {mean_text(x, 4)}{counts[name]}" for name, x in scores.items()]


def _statistics(values: Sequence[object]) -> dict | None:
    """Mean, median and standard error of the mean of the finite numbers among `values`."""
    numbers = [v for v in values if isinstance(v, (int, float)) and math.isfinite(v)]
    if not numbers:
        return None
    error = float(np.std(numbers, ddof=1) / math.sqrt(len(numbers))) if len(numbers) > 1 else None
    return {
        "mean": float(np.mean(numbers)),
        "median": float(np.median(numbers)),
        "standard_error": error,
        "n": len(numbers),
    }
