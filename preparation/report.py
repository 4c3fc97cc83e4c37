"""What a preprocessing run tells at its end."""

from __future__ import annotations

import os
from collections.abc import Sequence

from media.files import replacing
from preparation.pipeline import Result
from preparation.run import Usage

SHOWN = 10  # failures that are printed; the file has all


def failures_path(preprocessed_root: str, shard: tuple[int, int]) -> str:
    """The file of a run's failures; shards have one each."""
    i, n = shard
    return os.path.join(preprocessed_root, f"failures-{i}of{n}.tsv" if n > 1 else "failures.tsv")


def report(results: Sequence[Result], seconds: float, failures: str, usage: Usage) -> int:
    """Print what was done, write the failures' file, and return the number of failures."""
    failed = sorted((result for result in results if result.error), key=lambda result: result.name)
    done = [result for result in results if not (result.error or result.skipped or result.busy)]
    clips, frames = sum(result.clips for result in done), sum(result.frames for result in done)
    rate = f" ({clips / seconds:.2f} clips/s, {frames / seconds:.0f} frames/s)" if done else ""
    busy = sum(result.busy for result in results)
    print(
        f"{len(done)} videos done in {seconds:.0f} s: {clips} clips{rate}; "
        f"{sum(result.skipped for result in results)} were finished before, {len(failed)} failed"
        + (f", {busy} are another run's" if busy else "")
    )
    if frames:
        _report_frames(done, frames, usage)
    if failed:
        _report_failures(failed, failures)
    elif os.path.exists(failures):
        os.remove(failures)
    return len(failed)


def _report_frames(done: Sequence[Result], frames: int, usage: Usage) -> None:
    faces = sum(result.faces for result in done)
    crowded, short = sum(r.crowded for r in done), sum(r.short for r in done)
    print(f"{frames} frames, a face in {faces} ({100 * faces / frames:.2f}%)")
    if crowded or short:
        print(f"{crowded} clips show other people too; {short} short pieces were left out")
    shares = (f"{stage} {100 * share:.0f}%" for stage, share in usage.shares().items())
    print(f"time of all threads: {', '.join(shares)}")


def _report_failures(failed: Sequence[Result], path: str) -> None:
    with replacing(path) as file:
        file.writelines(f"{result.name}\t{result.error}\n" for result in failed)
    for result in failed[:SHOWN]:
        print(f"failed: {result.name}: {result.error}")
    if len(failed) > SHOWN:
        print(f"... and {len(failed) - SHOWN} more: {path}")
