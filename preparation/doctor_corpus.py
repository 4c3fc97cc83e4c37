"""What the clips' measures say together: speakers, copies, splits, and the summary of it all."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from corpus.listing import SPLITS, clip_groups
from hparams import read_filelist
from preparation.doctor_measure import Measures

# Two clips' vectors (doctor_measure.py), whose product is 1 for equal ones. Sound: of 37 real clips
# that were encoded again (AAC 64k, quieter) the least alike had 0.97; of 24,000 pairs of others,
# most of them GRID's sentences of one speaker, the most alike had 0.83. Pictures: clips of one
# video file have 1, others had up to 0.65; but so had copies encoded again: their boxes differ.
SAME_SOUND, SAME_PICTURE = 0.92, 0.98
SAME_SECONDS = 0.1  # lengths of copies differ by no more
LOOKED_AT = 300  # clips whose faces are compared
# Median likeness of the mean faces of two videos: 0.87 among 45 clips of one speaker, 0.90 among
# three recordings of another; 0.36 to 0.66 among clips of several people in one set of shots.
ONE_FACE = 0.80
FEW_GROUPS = 10  # with more folders the names are believed, not the faces
MEDIANS = (
    "seconds",
    "faces_share",
    "face_size",
    "sharpness",
    "brightness",
    "speech_db",
    "silence_share",
)
BLOCK = 1024  # rows of a comparison
SHOWN = 20  # names that are listed of what is wrong with many


def summarise(
    clips: Sequence[Measures], names: Sequence[str], filelists: str | None, seed: int
) -> dict:
    """All numbers about the corpus, as advice (doctor_advice.py) and the page need them. names: of
    all clips of the root, of which `clips` were examined.
    """
    groups = clip_groups(names)
    usable = [clip for clip in clips if clip.unusable is None]
    found = copies(clips)
    return {
        "found": len(names),
        "clips": len(clips),
        "usable": len(usable),
        "unusable": dict(Counter(c.unusable for c in clips if c.unusable).most_common()),
        "hours": sum(clip.seconds or 0.0 for clip in usable) / 3600,
        "windows_expert": sum(clip.windows_expert for clip in clips),
        "windows_generator": sum(clip.windows_generator for clip in clips),
        "problems": {clip.name: clip.problems for clip in clips if clip.problems},
        "speakers": speakers(usable, groups, seed),
        "shares": shares(usable),
        "medians": {name: _median(getattr(clip, name) for clip in usable) for name in MEDIANS},
        "near_negatives": _mean(clip.near_negatives for clip in usable),
        "copies": {kind: [names[:SHOWN] for names in sets] for kind, sets in found.items()},
        "copied_clips": {
            kind: sum(len(names) - 1 for names in sets) for kind, sets in found.items()
        },
        "filelists": None if filelists is None else splits(clips, groups, found, filelists),
    }


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.median(known)) if known else None


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


# What makes a clip suspicious, each by one number. "good": 236 real and synthetic clips in order.
TESTS: dict[str, tuple[str, Callable[[float], bool]]] = {
    "wrong_fps": ("fps", lambda fps: fps != 25),
    "faceless": ("faces_share", lambda share: share < 0.9),
    "crowded": ("other_faces_share", lambda share: share > 0.5),
    "small_face": ("face_size", lambda size: size < 48),  # blown up twofold and more to 96
    "jumping": ("jumps", lambda count: count > 0),
    "blurred": ("sharpness", lambda var: var < 50),  # good: 117 and more; a blur of 1.5 px: 39
    "dark": ("brightness", lambda grey: grey < 40),  # good: 63 to 180
    "bright": ("brightness", lambda grey: grey > 215),
    "burnt_out": ("bright_share", lambda share: share > 0.1),  # good: 0.004
    "still": ("change", lambda change: change < 0.5),  # grey levels; talking heads: 1.8 and more
    "silent": ("silence_share", lambda share: share > 0.7),  # speech pauses: up to 0.41
    "quiet": ("speech_db", lambda level: level < -40),  # good: -34 and more
    "clipped": ("clipped_share", lambda share: share > 0.003),  # good: 0.001; heard from 0.01 on
    "dc": ("dc", lambda mean: abs(mean) > 0.02),  # good: 0.007
}  # fmt: skip


def shares(clips: Sequence[Measures]) -> dict[str, float]:
    """Test -> share of the clips (of those where the number is known) that it finds."""
    found = {}
    for name, (field, test) in TESTS.items():
        values = [value for clip in clips if (value := getattr(clip, field)) is not None]
        found[name] = float(np.mean([test(value) for value in values])) if values else 0.0
    # The sound ends before the picture: the last frames have none
    ends = [clip.frames / 25 - clip.seconds > 0.2 for clip in clips if clip.frames and clip.seconds]
    found["sound_short"] = float(np.mean(ends)) if ends else 0.0
    return found


def speakers(clips: Sequence[Measures], groups: dict[str, str], seed: int) -> dict:
    """How many there are, by what, the share of sound of the largest, and whether all seem one.

    The names tell (the first folder); the faces are asked where there are few folders.
    """
    folders = {clip.name.split(os.sep)[0] for clip in clips}
    by_folder = len(folders) > 1
    seconds: Counter = Counter()
    for clip in clips:
        group = clip.name.split(os.sep)[0] if by_folder else groups[clip.name]
        seconds[group] += clip.seconds or 0.0
    alike = likeness(clips, groups, seed)
    one_face = len(folders) < FEW_GROUPS and alike is not None and alike >= ONE_FACE
    return {
        "count": 1 if one_face else len(seconds),
        "by": "faces" if one_face else "folders" if by_folder else "videos",
        # a few clips, all of one video, tell no more
        "one": bool(clips) and (one_face or (len(seconds) == 1 and alike is None)),
        "likeness": alike,
        "largest": seconds.most_common(1)[0][0] if seconds else None,
        "largest_share": max(seconds.values(), default=0) / (sum(seconds.values()) or 1),
        "minutes": {name: round(value / 60, 3) for name, value in seconds.most_common()},
    }


def likeness(clips: Sequence[Measures], groups: dict[str, str], seed: int) -> float | None:
    """Median likeness (-1..1) of the mean faces of two clips of different groups, or, where there
    is one group only, of two clips. None where fewer than two clips can be compared.
    """
    able = [clip for clip in clips if clip.look_vector is not None]
    if len(able) > LOOKED_AT:
        chosen = np.random.default_rng(seed).choice(len(able), LOOKED_AT, replace=False)
        able = [able[i] for i in chosen]
    if len(able) < 2:
        return None
    vectors = np.stack([clip.look_vector for clip in able]).astype(np.float32)
    _, member = np.unique([groups[clip.name] for clip in able], return_inverse=True)
    pairs = np.triu(np.ones((len(able), len(able)), bool), 1)
    if member.max() > 0:
        pairs &= member[:, None] != member[None]
    return float(np.median((vectors @ vectors.T)[pairs]))


def copies(clips: Sequence[Measures]) -> dict[str, list[list[str]]]:
    """Sets of clips that are the same: by `sound`, by `picture`, or by the piece of one `source`
    video that they are. Each set's names are sorted; largest sets first.
    """
    spans: dict[str, list[tuple]] = defaultdict(list)
    for i, clip in enumerate(clips):
        if clip.source and clip.frames:
            spans[clip.source].append((clip.first_frame, clip.first_frame + clip.frames, i))
    same_span = []
    for members in spans.values():
        members.sort()
        for (first, end, i), (other, other_end, j) in zip(members, members[1:], strict=False):
            if 2 * (min(end, other_end) - other) > min(end - first, other_end - other):
                same_span.append((i, j))
    pairs = {
        "sound": _alike(clips, "sound_vector", SAME_SOUND),
        "picture": _alike(clips, "picture_vector", SAME_PICTURE),
        "source": same_span,
    }
    return {kind: _sets(clips, found) for kind, found in pairs.items()}


def _alike(clips: Sequence[Measures], field: str, least: float) -> list[tuple[int, int]]:
    """Pairs of clips of one length whose unit vectors' product is at least `least`."""
    order = sorted(
        (i for i, clip in enumerate(clips) if clip.seconds and getattr(clip, field) is not None),
        key=lambda i: clips[i].seconds,
    )
    if len(order) < 2:
        return []
    seconds = np.array([clips[i].seconds for i in order])
    vectors = np.stack([getattr(clips[i], field) for i in order])  # (N, D) float16
    pairs = []
    for first in range(0, len(order), BLOCK):
        rows = vectors[first : first + BLOCK].astype(np.float32)
        last = np.searchsorted(seconds, seconds[first + len(rows) - 1] + SAME_SECONDS, "right")
        for start in range(first, last, BLOCK):
            columns = vectors[start : min(last, start + BLOCK)].astype(np.float32)
            for i, j in np.argwhere(rows @ columns.T >= least):
                i, j = first + i, start + j
                if i < j and seconds[j] - seconds[i] <= SAME_SECONDS:
                    pairs.append((order[i], order[j]))
    return pairs


def _sets(clips: Sequence[Measures], pairs: Sequence[tuple[int, int]]) -> list[list[str]]:
    """The connected sets of clips that the pairs make."""
    if not pairs:
        return []
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    rows, columns = np.array(pairs).T
    shape = (len(clips), len(clips))
    _, label = connected_components(coo_matrix((np.ones(len(rows)), (rows, columns)), shape))
    sets = defaultdict(list)
    for i in np.unique(np.array(pairs)):
        sets[label[i]].append(clips[i].name)
    found = [sorted(names) for names in sets.values()]
    return sorted(found, key=lambda names: (-len(names), names))


def splits(clips: Sequence[Measures], groups: dict[str, str], found: dict, filelists: str) -> dict:
    """What the filelists train, val and test hold: lines, lines without a clip, lines of clips that
    cannot be used or that --correct_sync dropped; and speakers, clips, copies that are in two.
    """
    by_name = {clip.name: clip for clip in clips}
    members = read_filelists(filelists)
    where: dict[str, set] = defaultdict(set)  # clip -> its splits
    speaker: dict[str, set] = defaultdict(set)
    for split, names in members.items():
        for name in names:
            where[name].add(split)
            if name in groups:
                speaker[groups[name]].add(split)
    copied = []
    for names in (names for sets in found.values() for names in sets):
        if len(set().union(*(where.get(name, set()) for name in names))) > 1:
            copied.append(names[:SHOWN])
    return {
        "lists": {
            split: {
                "lines": len(names),
                "missing": [name for name in names if name not in groups],
                "unusable": sum(name in by_name and by_name[name].unusable is not None
                                for name in names),
                "dropped": sum(name in by_name and (by_name[name].sync or {}).get("kept") is False
                               for name in names),
                "twice": len(names) - len(set(names)),
            }
            for split, names in members.items()
        },
        "unlisted": sum(name not in where for name in groups),
        "clips_in_two": sorted(name for name, lists in where.items() if len(lists) > 1),
        "speakers_in_two": sorted(name for name, lists in speaker.items() if len(lists) > 1),
        "copies_in_two": copied,
    }  # fmt: skip


def read_filelists(folder: str) -> dict[str, list[str]]:
    """Split -> the names in `<folder>/<split>.txt`, of the lists that are there."""
    members = {}
    for split in SPLITS:
        path = os.path.join(folder, f"{split}.txt")
        if os.path.isfile(path):
            members[split] = [os.path.normpath(name) for name in read_filelist(path)]
    return members


def histogram(values: Iterable[float | None], edges: Sequence[float]) -> dict:
    """{"edges", "counts"}; what lies beyond the edges is counted at the ends."""
    known = np.array([value for value in values if value is not None], float)
    counts, _ = np.histogram(np.clip(known, edges[0], edges[-1]), edges)
    return {"edges": [round(float(edge), 4) for edge in edges], "counts": counts.tolist()}
