"""Sync correction: filelists that say by how much a clip's sound is shifted, without the hopeless.

Lip landmarks (experts/lip_lag.py) or a lip-sync expert (experts/offset.py) say by how many frames
each clip's sound is early or late.
The kept filelists have that as `dir/video +3`, and whoever reads windows by them (datasets.py)
hears the sound 3 frames later. Clips stay as they are: to undo it, train with the old lists.
"""

from __future__ import annotations

import itertools
import json
import os
import statistics
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from tqdm import tqdm

from corpus.clips import read_record
from corpus.listing import SPLITS, find_clips, write_filelists
from errors import InputError
from experts.lip_lag import LipLag
from experts.offset import MAX_SHIFT, Expert, clip_offset, load_expert
from hparams import HParams, read_entries
from media.files import add_record, read_records, replacing, stamp

# Below this the expert is guessing. SyncNet v2's is the value in use for real corpora. Distances of
# unit vectors differ less: on held-out clips of 71 windows the demo's SyncNet_color is above 0.33
# in 95%, and with another speaker's sound below 0.21 in 95%.
MIN_CONFIDENCE = {"SyncNet_color": 0.25, "SyncNet_v2": 3.0, "landmarks": 0.25}
JUDGED = "offsets.jsonl"  # beside the kept lists: a line for every clip that was judged
BAR = 40  # characters of the longest bar of the histogram


class Verdict(NamedTuple):
    """What was decided about a clip. offset, confidence: None where it could not be judged; reason:
    why it is dropped, None where it is kept.
    """

    name: str
    offset: int | None
    confidence: float | None
    reason: str | None

    @property
    def shift(self) -> int:
        """Frames by which the kept list delays its sound."""
        return 0 if self.reason else self.offset


def correct_root(
    preprocessed_root: str, expert_path: str | None, filelists: str | None, out_filelists: str,
    max_offset: int, min_confidence: float | None, device, hp: HParams,
) -> list[Verdict]:  # fmt: skip
    """Judge every clip, by the expert or without one by lip landmarks, and list those to keep with
    the shift that brings them into sync.

    Clips of a confidence below `min_confidence` (None: MIN_CONFIDENCE of the expert's kind),
    more than `max_offset` frames out of sync, or too short to tell are dropped: left out of
    `<out_filelists>/<split>.txt`, which mirror the lists in `filelists` (None: one kept.txt of all
    clips), and named with the reason in dropped.tsv. A clip that the same expert has judged before
    is not judged again. Prints a report; InputError where no clip can be judged.
    """
    names = find_clips(preprocessed_root)
    lists = {} if filelists else {"kept": names}
    if filelists:
        if os.path.realpath(filelists) == os.path.realpath(out_filelists):
            raise InputError(
                f"the kept filelists would overwrite those in {filelists}; name another folder"
            )
        for split, entries in read_lists(filelists, preprocessed_root).items():
            paths = (os.path.join(preprocessed_root, name) for name, _ in entries)  # or absolute
            lists[split] = [os.path.relpath(path, preprocessed_root) for path in paths]
        if not lists:
            raise InputError(f"no {', '.join(f'{split}.txt' for split in SPLITS)} in {filelists}")
    expert = load_expert(expert_path, device) if expert_path else LipLag()
    least = MIN_CONFIDENCE[expert.kind] if min_confidence is None else min_confidence
    try:
        os.makedirs(out_filelists, exist_ok=True)
        log = os.path.join(out_filelists, JUDGED)
        found = judge_all(preprocessed_root, names, expert, hp, _read_log(log), log)
        verdicts = [_decide(found[name], max_offset, least) for name in names]
        judged = [verdict for verdict in verdicts if verdict.offset is not None]
        if not judged:
            reason = Counter(verdict.reason for verdict in verdicts).most_common(1)[0][0]
            raise InputError(f"none of {len(names)} clips can be judged, most with: {reason}")
        with replacing(log) as file:
            for v in judged:
                file.write(json.dumps(found[v.name] | {"kept": not v.reason}) + "\n")
        _print_report(verdicts, judged, expert.label)
        _write_lists(verdicts, lists, out_filelists)
    except OSError as error:
        raise InputError(f"cannot write {error.filename}: {error.strerror}") from error
    return verdicts


def known_sync(filelists: str, root: str) -> dict[str, dict]:
    """Clip -> {"shift": as the lists in this folder have it} and, if a correction wrote these lists
    or others from them, {"offset", "confidence", "expert", "kept"} of the clips it judged.
    """
    known: dict[str, dict] = {}
    for folder in (filelists, os.path.normpath(filelists) + "_synced"):
        known |= _read_log(os.path.join(folder, JUDGED))
    known = {name: entry | {"shift": 0} for name, entry in known.items()}
    for name, shift in itertools.chain(*read_lists(filelists, root).values()):
        known.setdefault(name, {})["shift"] = shift
    return known


def read_lists(folder: str, root: str = "") -> dict[str, list[tuple[str, int]]]:
    """Split -> (clip, shift) of each line, of the filelists that are in a folder."""
    paths = {split: os.path.join(folder, f"{split}.txt") for split in SPLITS}
    return {
        split: read_entries(path, root) for split, path in paths.items() if os.path.isfile(path)
    }


def judge_all(
    root: str, names: Sequence[str], expert: Expert | LipLag, hp: HParams,
    before: dict[str, dict], log: str | None = None,
) -> dict[str, dict]:  # fmt: skip
    """Name -> what the expert finds in the clip: offset, confidence and searched, or, where it
    cannot be judged, a reason and None for the first two. What it found `before` in the same clip
    is believed. `log` grows with each: a killed run is gone on with.
    """

    def judge(name: str) -> dict:
        folder = os.path.join(root, name)
        changed = stamp(os.path.join(folder, "clip.json"))
        entry = {"name": name, "expert": expert.label, "stamp": changed}
        if before.get(name, {}).items() >= entry.items():
            return before[name]
        try:
            rewritten = read_record(folder).get("sync")  # earlier versions wrote mel.npy anew
            found = clip_offset(expert, folder, hp)
            entry["offset"] = found.offset - (rewritten["shift"] or 0 if rewritten else 0)
            entry["confidence"] = round(found.confidence, 4)
            return entry | {"searched": found.searched}
        except InputError as error:
            reason = str(error).removeprefix(f"{folder}: ")
        except (OSError, ValueError, KeyError, TypeError) as error:  # a crop that is no picture
            reason = f"unreadable: {error}"
        return entry | {"offset": None, "confidence": None, "reason": reason}

    on_gpu, judged = expert.device.type != "cpu", {}
    # on a GPU, threads decode while it computes
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1) if on_gpu else 1)
    try:
        found = pool.map(judge, names)
        quiet = not sys.stderr.isatty()
        for entry in tqdm(found, expert.kind, len(names), unit="clip", disable=quiet):
            judged[entry["name"]] = entry
            if log and entry["offset"] is not None and entry is not before.get(entry["name"]):
                add_record(log, entry)
    finally:
        pool.shutdown(cancel_futures=True)
    return judged


def _read_log(path: str) -> dict[str, dict]:
    """Name -> what was found last."""
    return {entry["name"]: entry for entry in read_records(path) if "name" in entry}


def _decide(found: dict, max_offset: int, min_confidence: float) -> Verdict:
    offset, reason = found["offset"], found.get("reason")
    if reason:
        pass
    elif found["confidence"] < min_confidence:
        reason = f"confidence below {min_confidence:g}"
    elif abs(offset) > max_offset:
        reason = f"offset beyond {max_offset}"
    # a short clip is searched less far, and at the end of that the true offset may lie beyond
    elif abs(offset) == found["searched"] < MAX_SHIFT:
        reason = "offset at the end of a short clip's search"
    return Verdict(found["name"], offset, found["confidence"], reason)


def _write_lists(verdicts: Sequence[Verdict], lists: dict[str, list[str]], out: str) -> None:
    """The kept names of each list with their shifts, and dropped.tsv."""
    lines = {v.name: f"{v.name} {v.shift:+d}" if v.shift else v.name for v in verdicts}
    dropped = {v.name: (v.reason, v.offset, v.confidence) for v in verdicts if v.reason}
    for name in {name for names in lists.values() for name in names} - lines.keys():
        dropped[name] = ("not in the root", None, None)
    kept = {split: [lines[n] for n in names if n not in dropped] for split, names in lists.items()}
    write_filelists(kept, out)
    for split, names in lists.items():
        print(f"{split}: {len(kept[split])} of {len(names)} clips kept")
    with replacing(os.path.join(out, "dropped.tsv")) as file:
        file.write("name\treason\toffset\tconfidence\n")
        for name, why in sorted(dropped.items()):
            cells = ("" if cell is None else " ".join(str(cell).split()) for cell in (name, *why))
            file.write("\t".join(cells) + "\n")
    print(f"kept lists with their shifts, and dropped.tsv: train with --filelists {out}")


def _print_report(verdicts: Sequence[Verdict], judged: Sequence[Verdict], label: str) -> None:
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
