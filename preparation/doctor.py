"""A check-up of a preprocessed root: will an expert learn from it, and if not, what is to be done?

Measures every clip (doctor_measure.py), asks an expert about sync if there is one (doctor_sync.py;
else doctor_hint.py), and sums up (doctor_corpus.py) in findings (doctor_advice.py), a picture
(doctor_plot.py), doctor.txt and doctor.json.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from typing import TYPE_CHECKING

from errors import InputError
from media.files import replacing

if TYPE_CHECKING:
    from hparams import HParams
    from preparation.doctor_advice import Finding
    from preparation.doctor_measure import Measures

HINT_CLIPS = 200  # whose crops are all read; a few dozen are enough where people face the camera
CHUNK = 32  # clips handed to a process at a time; so few are measured without one
WIDTH = 100  # columns of the page; commands are not broken


def examine(
    preprocessed_root: str,
    out: str,
    filelists: str | None = None,
    expert: str | None = None,
    device="cpu",
    workers: int = 1,
    max_clips: int = 0,
    seed: int = 0,
) -> dict:
    """Write doctor.json, doctor.png and doctor.txt into `out`, print the latter, and return what
    doctor.json holds: root, verdict, findings, summary, histograms and a row for each clip.

    filelists: folder of train.txt, val.txt, test.txt. expert: checkpoint of a SyncNet_color or
    SyncNet v2, run on `device`. workers: processes. max_clips: look at so many, drawn by seed; 0:
    at all. InputError where there is no clip or `out` cannot be written.
    """
    from corpus.listing import find_clips
    from experts.offset import load_expert
    from hparams import HParams
    from preparation import doctor_sync
    from preparation.doctor_advice import advise, verdict
    from preparation.doctor_corpus import summarise
    from preparation.doctor_hint import pool_hint
    from preparation.doctor_plot import plot

    hp, names = HParams(), find_clips(preprocessed_root)
    try:
        os.makedirs(out, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}") from error
    judge = load_expert(expert, device) if expert else None  # before the work: it may be refused
    examined = _draw(names, max_clips, seed)
    hinted = set() if expert else set(_draw(examined, HINT_CLIPS, seed))
    clips = measure(preprocessed_root, examined, hp, hinted, workers)
    failed = doctor_sync.ask_expert(preprocessed_root, clips, judge, hp) if judge else {}
    summary = summarise(clips, names, filelists, seed)
    summary["sync"] = doctor_sync.sync_summary(clips, failed)
    summary["hint"] = pool_hint([clip.hint for clip in clips if clip.hint is not None], seed)
    findings = advise(summary, preprocessed_root, expert)
    report = {
        "root": preprocessed_root,
        "verdict": verdict(findings),
        "findings": [asdict(finding) for finding in findings],
        "summary": summary,
        "histograms": histograms(clips),
        "clips": [clip.row() for clip in clips],
    }
    text = page(summary, findings, report["verdict"], preprocessed_root)
    try:
        _write(os.path.join(out, "doctor.json"), _json(report))
        _write(os.path.join(out, "doctor.txt"), text)
        plot(report, os.path.join(out, "doctor.png"))
    except OSError as error:
        raise InputError(f"cannot write to {out}: {error.strerror}") from error
    print(text, end="")
    print(f"{out}: doctor.txt, doctor.json, doctor.png")
    return report


def _draw(names: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` of the names (0: all), in order."""
    import numpy as np

    if not 0 < count < len(names):
        return list(names)
    chosen = np.random.default_rng(seed).choice(len(names), count, replace=False)
    return [names[i] for i in sorted(chosen)]


def measure(
    root: str, names: Sequence[str], hp: HParams, hinted: set[str], workers: int
) -> list[Measures]:
    """measure_clip of every clip, in the order of `names`. hinted: those for the sync hint."""
    from tqdm import tqdm

    chunks = [names[first : first + CHUNK] for first in range(0, len(names), CHUNK)]
    measured: dict[str, Measures] = {}
    with tqdm(total=len(names), unit="clip", disable=not sys.stderr.isatty()) as bar:
        for done in _run(functools.partial(_measure_chunk, root, hp, hinted), chunks, workers):
            measured.update((clip.name, clip) for clip in done)
            bar.update(len(done))
    return [measured[name] for name in names]


def _run(task, chunks: list, workers: int) -> Iterator[list[Measures]]:
    """task(chunk) for every chunk, in any order."""
    workers = min(workers, len(chunks))
    if workers <= 1:
        yield from map(task, chunks)
        return
    # "spawn": a fork of a process in which OpenCV or torch already runs threads can hang
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    try:
        for future in as_completed([pool.submit(task, chunk) for chunk in chunks]):
            yield future.result()
    except BrokenProcessPool as error:
        raise InputError(
            "a process of the doctor died (out of memory?); try fewer --workers"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _measure_chunk(
    root: str, hp: HParams, hinted: set[str], names: Sequence[str]
) -> list[Measures]:
    from preparation.doctor_measure import measure_clip

    return [measure_clip(root, name, hp, name in hinted) for name in names]


def histograms(clips: Sequence[Measures]) -> dict[str, dict]:
    """Measure -> {"edges", "counts"}, of the clips where it is known."""
    import numpy as np

    from preparation.doctor_corpus import histogram
    from preparation.doctor_sync import remaining

    edges = {
        "seconds": np.linspace(0, 12, 49),
        "faces_share": np.linspace(0, 1, 21),
        "face_size": np.arange(0, 401, 16),
        "sharpness": np.geomspace(5, 5000, 31),
        "brightness": np.linspace(0, 255, 52),
        "speech_db": np.arange(-70, 1, 2),
        "silence_share": np.linspace(0, 1, 21),
        "windows_expert": np.arange(0, 301, 12),
    }
    found = {
        name: histogram((getattr(clip, name) for clip in clips), edge)
        for name, edge in edges.items()
    }
    asked = [clip for clip in clips if clip.sync]
    if asked:
        found["offset"] = histogram(map(remaining, asked), np.arange(-15.5, 16.5))
        confidences = [clip.sync["confidence"] for clip in asked]
        top = max(0.1, float(np.percentile(confidences, 99.5)))
        found["confidence"] = histogram(confidences, np.linspace(0, top, 31))
    return found


def page(summary: dict, findings: Sequence[Finding], verdict: str, root: str) -> str:
    """The page of text: numbers, findings, verdict."""
    lines = [f"{root}: {summary['clips']} of {summary['found']} clips examined", ""]
    for name, text in _numbers(summary).items():
        lines += textwrap.wrap(f"{name:<10}{text}", WIDTH, subsequent_indent=" " * 10)
    for finding in findings:
        seen = f"{finding.level.upper()} {finding.code}: {finding.seen}"
        lines += ["", *textwrap.wrap(seen, WIDTH, subsequent_indent=" " * 5)]
        lines += textwrap.wrap(
            f"why: {finding.why}", WIDTH, initial_indent=" " * 5, subsequent_indent=" " * 10
        )
        lines.append(f"     do:  {finding.do}")
    return "\n".join([*lines, "", verdict, ""])


def _numbers(summary: dict) -> dict[str, str]:
    """Heading -> text, for each kind of measure."""
    from preparation.doctor_advice import duration, percent

    def median(name: str, form: str = "{:.0f}") -> str:
        value = summary["medians"][name]
        return "unknown" if value is None else form.format(value)

    share = {name: percent(value) for name, value in summary["shares"].items()}
    people, copied = summary["speakers"], summary["copied_clips"].items()
    lists = (summary["filelists"] or {}).get("lists", {})
    return {
        "clips": f"{summary['usable']} of {summary['clips']} usable",
        "windows": f"{summary['windows_expert']} for the expert, "
        f"{summary['windows_generator']} for the generator",
        "length": f"{duration(summary['hours'])}; median clip {median('seconds', '{:.2f}')} s",
        "speakers": f"{people['count']} (by {people['by']}); "
        f"{percent(people['largest_share'])} of the sound is of {people['largest']}",
        "faces": f"in {median('faces_share', '{:.1%}')} of a median clip's frames, "
        f"{median('face_size')} px; of the clips {share['small_face']} below 48 px, "
        f"{share['faceless']} with faces missing, {share['jumping']} with leaps, "
        f"{share['crowded']} with others",
        "pictures": f"sharpness {median('sharpness')}, brightness {median('brightness')} "
        f"(medians); {share['blurred']} blurred, {share['dark']} dark, {share['bright']} bright, "
        f"{share['burnt_out']} burnt out, {share['still']} still",
        "sound": f"speech at {median('speech_db')} dBFS, {median('silence_share', '{:.0%}')} "
        f"silence (medians); {share['quiet']} quiet, {share['clipped']} clipped, "
        f"{share['silent']} silent, {share['dc']} off centre, {share['sound_short']} end before "
        "the picture",
        "copies": ", ".join(f"{count} by {kind}" for kind, count in copied),
        "sync": _sync_text(summary),
        "filelists": ", ".join(f"{split} {of['lines']} lines" for split, of in lists.items())
        or "none",
    }


def _sync_text(summary: dict) -> str:
    from preparation.doctor_advice import percent

    sync, hint = summary["sync"], summary["hint"]
    if sync is None:
        if hint is None:
            return "no expert asked; too few clips for a hint"
        return (
            f"no expert asked; hint: {hint['offset']:+d} frames, on which "
            f"{percent(hint['agreement'])} of the samples of {hint['clips']} clips agree"
        )
    text = (
        f"{sync['judged']} clips judged by {', '.join(sync['experts'])}; sure of "
        f"{percent(sync['sure_share'])}, median confidence {sync['confidence']:.2f}"
    )
    if sync["within_1"] is not None:
        text += (
            f"; within 1 frame {percent(sync['within_1'])}, 3 frames {percent(sync['within_3'])}"
        )
    if sync["shifted"] or sync["dropped"]:
        text += f"; corrected before: {sync['shifted']} shifted, {sync['dropped']} dropped"
    return text


def _json(report: dict) -> str:
    """The report as JSON text with a line for each clip, of which there may be many thousands."""
    rest = {name: value for name, value in report.items() if name != "clips"}
    rows = ",\n".join(json.dumps(row, allow_nan=False) for row in report["clips"])
    head = json.dumps(rest, indent=1, allow_nan=False)
    return f'{head[: head.rindex("}")].rstrip()},\n "clips": [\n{rows}\n ]\n}}\n'


def _write(path: str, text: str) -> None:
    with replacing(path) as file:
        file.write(text)
