"""Sync correction: the sound of clips that are out of sync is shifted, hopeless clips are left out.

A lip-sync expert says by how many frames each clip's sound is early or late
(experts/offset.py). Training hears mel.npy alone, so only that is written anew; audio.wav
stays as preprocessed, clip.json tells under "sync" what was done, and `undo_root` takes it back.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from audio import load_wav, melspectrogram
from corpus.listing import SPLITS, find_clips, write_filelists
from errors import InputError
from experts.offset import MAX_SHIFT, Expert, clip_offset, load_expert
from hparams import HParams, get_image_list
from media.files import replacing, write_json

if TYPE_CHECKING:
    import torch

# Below this the expert is guessing. SyncNet v2's is the value in use for real corpora. Distances of
# unit vectors differ less: on held-out clips of 71 windows the demo's SyncNet_color is above 0.33
# in 95%, and with another speaker's sound below 0.21 in 95%.
MIN_CONFIDENCE = {"SyncNet_color": 0.25, "SyncNet_v2": 3.0}
BAR = 40  # characters of the longest bar of the histogram


@dataclass(frozen=True)
class Verdict:
    """What was decided about a clip. offset, confidence: None where it could not be judged; shift:
    frames by which its sound was delayed; reason: why it is dropped, None where it is kept.
    """

    name: str
    offset: int | None
    confidence: float | None
    shift: int
    reason: str | None


def correct_root(
    preprocessed_root: str,
    expert_path: str,
    filelists: str | None,
    out_filelists: str,
    max_offset: int,
    min_confidence: float | None,
    device: torch.device | str,
    hp: HParams,
) -> list[Verdict]:
    """Judge every clip, shift the sound of those within `max_offset` frames, list what is kept.

    Clips of a confidence below `min_confidence` (None: MIN_CONFIDENCE of the expert's kind),
    further out of sync, or too short to tell are dropped: left out of
    `<out_filelists>/<split>.txt`, which mirror the lists in `filelists` (None: one kept.txt of all
    clips), and named with the reason in dropped.tsv. A clip that the same expert has judged before
    is not judged again. Prints a report; InputError where no clip can be judged.
    """
    names = find_clips(preprocessed_root)
    lists = _read_filelists(filelists, out_filelists) if filelists else {"kept": names}
    expert = load_expert(expert_path, device)
    if min_confidence is None:
        min_confidence = MIN_CONFIDENCE[expert.kind]
    try:
        verdicts = _judge_all(preprocessed_root, names, expert, max_offset, min_confidence, hp)
        if all(verdict.offset is None for verdict in verdicts):
            reason = Counter(verdict.reason for verdict in verdicts).most_common(1)[0][0]
            raise InputError(f"none of {len(names)} clips can be judged, most with: {reason}")
        _print_report(verdicts, expert.label)
        _write_lists(verdicts, lists, out_filelists)
    except OSError as error:
        raise InputError(f"cannot write {error.filename}: {error.strerror}") from error
    return verdicts


def undo_root(preprocessed_root: str) -> int:
    """Every clip's mel.npy from its audio.wav, as preprocess wrote it, and no "sync" in clip.json.

    Prints and returns how many clips had been judged; faults are printed clip by clip. A clip
    without a record is restored too: its correction may have been interrupted.
    """
    undone, hp = 0, HParams()
    for name in _progress(find_clips(preprocessed_root)):
        folder = os.path.join(preprocessed_root, name)
        try:
            record = _read_record(folder)
            undone += "sync" in record
            _apply(folder, record, None, hp)
        except InputError as error:
            print(f"failed: {name}: {error}")
        except OSError as error:
            raise InputError(f"cannot write {error.filename}: {error.strerror}") from error
    print(f"sync correction taken back in {undone} clips")
    return undone


def _judge_all(
    root: str,
    names: Sequence[str],
    expert: Expert,
    max_offset: int,
    min_confidence: float,
    hp: HParams,
) -> list[Verdict]:
    """correct_clip for every clip; on a GPU, threads decode while it computes."""
    device = next(expert.model.parameters()).device.type
    pool = ThreadPoolExecutor(1 if device == "cpu" else min(8, os.cpu_count() or 1))
    try:
        futures = [
            pool.submit(correct_clip, root, name, expert, max_offset, min_confidence, hp)
            for name in names
        ]
        return [future.result() for future in _progress(futures)]
    finally:
        pool.shutdown(cancel_futures=True)


def correct_clip(
    root: str, name: str, expert: Expert, max_offset: int, min_confidence: float, hp: HParams
) -> Verdict:
    """Judge the clip `<root>/<name>`, or take the expert's earlier word for it, and act on it."""
    folder = os.path.join(root, name)
    try:
        record = _read_record(folder)
        found = _earlier(record, expert.label) or _judge(folder, expert, hp)
        reason = _reason_to_drop(found, max_offset, min_confidence)
        shift = 0 if reason else found["offset"]
        sync = found | {"shift": shift, "kept": not reason, "expert": expert.label}
        _apply(folder, record, sync | ({"reason": reason} if reason else {}), hp)
        return Verdict(name, found["offset"], found["confidence"], shift, reason)
    except InputError as error:
        return Verdict(name, None, None, 0, f"unreadable: {error}")


def _judge(folder: str, expert: Expert, hp: HParams) -> dict:
    """{"offset", "confidence", "searched"} by the expert; where it cannot tell, {"offset": None,
    "confidence": None, "reason": why}.
    """
    try:
        found = clip_offset(expert, folder, hp, MAX_SHIFT)
    except InputError as error:
        reason = str(error).removeprefix(f"{folder}: ")
        return {"offset": None, "confidence": None, "reason": reason}
    except (OSError, ValueError) as error:  # a crop that is no picture, say
        return {"offset": None, "confidence": None, "reason": f"unreadable: {error}"}
    confidence = round(found.confidence, 4)
    return {"offset": found.offset, "confidence": confidence, "searched": found.searched}


def _earlier(record: dict, label: str) -> dict | None:
    """What the same expert found before, by clip.json."""
    sync = record.get("sync", {})
    found = {key: sync.get(key) for key in ("offset", "confidence", "searched")}
    return found if sync.get("expert") == label and None not in found.values() else None


def _reason_to_drop(found: dict, max_offset: int, min_confidence: float) -> str | None:
    offset = found["offset"]
    if offset is None:
        return found["reason"]
    if found["confidence"] < min_confidence:
        return f"confidence below {min_confidence:g}"
    if abs(offset) > max_offset:
        return f"offset beyond {max_offset}"
    # a short clip is searched less far, and at the end of that the true offset may lie beyond
    if abs(offset) == found["searched"] < MAX_SHIFT:
        return "offset at the end of a short clip's search"
    return None


def _read_record(folder: str) -> dict:
    path = os.path.join(folder, "clip.json")
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error})") from error
    if not isinstance(record, dict) or not isinstance(record.get("sync", {}), dict):
        raise InputError(f"{path} is not a clip's record")
    return record


def _apply(folder: str, record: dict, sync: dict | None, hp: HParams) -> None:
    """Bring mel.npy and clip.json to what `sync` says (None: to what preprocess wrote).

    The order makes it safe to be killed: as long as mel.npy is not known to be what clip.json says,
    clip.json says nothing of a shift, or null, and the next run writes mel.npy again.
    """
    path, before = os.path.join(folder, "clip.json"), record.get("sync")
    shift = sync["shift"] if sync else 0
    if before is None or before.get("shift") != shift:
        if before is not None:
            write_json(path, record | {"sync": before | {"shift": None}})
        write_mel(folder, shift, hp)
    if sync != before:
        rest = {key: value for key, value in record.items() if key != "sync"}
        write_json(path, rest | ({"sync": sync} if sync else {}))


def write_mel(folder: str, shift: int, hp: HParams) -> None:
    """mel.npy of the clip's audio.wav delayed by `shift` frames (negative: advanced); as many rows
    as ever. Shift 0 gives the very file that preprocess wrote.
    """
    wav = load_wav(os.path.join(folder, "audio.wav"), hp.sample_rate)
    content = io.BytesIO()
    mel = melspectrogram(delayed(wav, shift * hp.sample_rate // hp.fps), hp)
    np.save(content, np.ascontiguousarray(mel.T))
    path = os.path.join(folder, "mel.npy")
    if os.path.exists(path):
        with open(path, "rb") as file:
            if file.read() == content.getvalue():
                return
    with replacing(path, "wb") as file:
        file.write(content.getvalue())


def delayed(wav: np.ndarray, samples: int) -> np.ndarray:
    """wav (n,) with `samples` of silence in front and its end cut, or the other way round where
    negative: (n,).
    """
    out = np.zeros_like(wav)
    count = max(0, len(wav) - abs(samples))
    if samples >= 0:
        out[len(wav) - count :] = wav[:count]
    else:
        out[:count] = wav[len(wav) - count :]
    return out


def _read_filelists(folder: str, out: str) -> dict[str, list[str]]:
    """Split -> clip names, of the lists that are there."""
    if os.path.realpath(folder) == os.path.realpath(out):
        raise InputError(
            f"the kept filelists would overwrite those in {folder}; name another folder"
        )
    there = [split for split in SPLITS if os.path.exists(os.path.join(folder, f"{split}.txt"))]
    if not there:
        raise InputError(f"no {', '.join(f'{split}.txt' for split in SPLITS)} in {folder}")
    return {split: get_image_list("", split, folder) for split in there}


def _write_lists(verdicts: Sequence[Verdict], lists: dict[str, list[str]], out: str) -> None:
    """The kept names of each list, and dropped.tsv: name, reason, offset, confidence."""
    kept = {verdict.name for verdict in verdicts if not verdict.reason}
    write_filelists({split: [n for n in names if n in kept] for split, names in lists.items()}, out)
    for split, names in lists.items():
        print(f"{split}: {sum(name in kept for name in names)} of {len(names)} clips kept")
    listed = {name for names in lists.values() for name in names}
    missing = listed - {verdict.name for verdict in verdicts}
    dropped = [verdict for verdict in verdicts if verdict.reason]
    dropped += [Verdict(name, None, None, 0, "not in the root") for name in missing]
    path = os.path.join(out, "dropped.tsv")
    with replacing(path) as file:
        file.write("name\treason\toffset\tconfidence\n")
        for verdict in sorted(dropped, key=lambda verdict: verdict.name):
            row = (verdict.name, verdict.reason, verdict.offset, verdict.confidence)
            cells = ("" if cell is None else " ".join(str(cell).split()) for cell in row)
            file.write("\t".join(cells) + "\n")
    print(f"kept lists and dropped.tsv: {out}")


def _print_report(verdicts: Sequence[Verdict], label: str) -> None:
    import statistics

    judged = [verdict for verdict in verdicts if verdict.offset is not None]
    counts = Counter(verdict.offset for verdict in judged)
    print(f"{len(verdicts)} clips, {len(judged)} judged by {label}")
    print("offset in frames (positive: the sound is early), number of clips")
    for offset in sorted(counts):
        bar = "#" * max(1, round(BAR * counts[offset] / max(counts.values())))
        print(f"{offset:+4d} {bar} {counts[offset]}")
    print(f"median confidence {statistics.median(v.confidence for v in judged):.3f}")
    shifted = sum(verdict.shift != 0 for verdict in verdicts)
    reasons = Counter(v.reason.split(":")[0] for v in verdicts if v.reason)
    why = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    print(f"{shifted} shifted, {sum(reasons.values())} dropped" + (f": {why}" if why else ""))


def _progress(items: Sequence) -> Sequence:
    from tqdm import tqdm

    return tqdm(items, unit="clip", disable=not sys.stderr.isatty())
