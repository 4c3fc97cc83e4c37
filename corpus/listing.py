"""Which videos there are, what their clips are called, and who is in which split."""

from __future__ import annotations

import contextlib
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence

from errors import InputError
from media.files import replacing
from media.lists import join_listed, read_lines

VIDEO_ENDINGS = (
    *(".mp4", ".mpg", ".mpeg", ".avi", ".mov", ".mkv", ".webm"),
    *(".m4v", ".flv", ".ts", ".mts", ".wmv", ".3gp"),
)
PART, LOCK = ".part", ".lock"  # a clip in the making lies in <name>.part, beside a lock
LRS2_NAME = re.compile(r"[^/]+/\d{5}")
SPLITS = ("train", "val", "test")


def find_videos(data_root: str) -> list[tuple[str, str]]:
    """(clip name, path) of every video of `data_root`, sorted by name.

    data_root: a folder (searched to the bottom), one video, or a text file with a path a line,
    relative to that file. The clip's name is its path below the root without the ending
    (`dir/video`); blanks become `_`, because a filelist ends a name at a blank. In LRS2's top
    folder (mvlrs_v1) only `main` is used (paper section 4). InputError where two videos would
    become one clip.
    """
    paths, base = list_videos(data_root)
    found: dict[str, str] = {}
    for path in paths:
        name = clip_name(path, base)
        if found.setdefault(name, path) != path:
            raise InputError(f"{found[name]} and {path} would become one clip; rename one")
    for name in found:
        if os.path.dirname(name) in found:
            raise InputError(
                f"the clip of {found[name]} would lie inside that of "
                f"{found[os.path.dirname(name)]}; rename one"
            )
    return sorted(found.items())


def list_videos(data_root: str) -> tuple[list[str], str]:
    """(paths of the videos of `data_root`, the folder below which they are named)."""
    if os.path.isdir(data_root):
        if os.path.basename(os.path.normpath(data_root)) == "mvlrs_v1":
            data_root = os.path.join(data_root, "main")
        paths = [
            os.path.join(folder, name)
            for folder, _, names in _walk(data_root)
            for name in names
            if _is_video(name) and not name.startswith(".")
        ]
        base = os.path.abspath(data_root)
        where = f"no video ({' '.join(VIDEO_ENDINGS)}) below {data_root}"
    elif not os.path.exists(data_root):
        raise InputError(f"--data_root is neither a folder nor a file: {data_root}")
    else:
        paths, folder = [data_root], os.path.dirname(os.path.abspath(data_root))
        if not _is_video(data_root):  # a list, in whose order each counts once
            lines = filter(None, read_lines(data_root, "--data_root"))
            paths = list(dict.fromkeys(join_listed(folder, line) for line in lines))
        folders = {os.path.dirname(os.path.abspath(path)) for path in paths}
        base = os.path.commonpath(folders) if folders else ""
        where = f"--data_root {data_root} lists no video"
    if not paths:
        raise InputError(where)
    return paths, base


def clip_name(path: str, base: str) -> str:
    """`dir/video` for a video below `base`; one right in it gets the base's own name for <dir>.

    Always UTF-8, and no part of it ends like a clip in the making.
    """
    name = os.path.relpath(os.path.splitext(os.path.abspath(path))[0], base)
    if os.path.dirname(name) == "":
        name = os.path.join(os.path.basename(base) or "videos", name)
    # a byte of a name that is not UTF-8, say 0xfc, comes as U+DCFC: it becomes xfc
    plain = (f"x{ord(c) - 0xDC00:x}" if "\udc80" <= c <= "\udcff" else c for c in name)
    name = "_".join("".join(plain).split())
    parts = (f"{p[: -len(PART)]}_part" if p.endswith(PART) else p for p in name.split(os.sep))
    return os.sep.join(parts)


def _is_video(path: str) -> bool:
    return path.lower().endswith(VIDEO_ENDINGS)


def _walk(root: str) -> Iterator[tuple[str, list[str], list[str]]]:
    """os.walk in the order of names that follows links too, but enters each folder once: under its
    own name where it has one below root, so behind all that is no link.
    """
    seen: set[str] = set()
    todo = [root]
    for top in todo:  # grows while it is walked
        for folder, folders, names in os.walk(top):
            real = os.path.realpath(folder)
            if real in seen:
                folders.clear()
                continue
            seen.add(real)
            folders.sort()
            yield folder, folders, sorted(names)
            paths = (os.path.join(folder, name) for name in folders)
            todo += [path for path in paths if os.path.islink(path)]


def is_lrs2(names: Sequence[str]) -> bool:
    """Whether all names are `<dir>/<five digits>`, as LRS2's are."""
    return all(LRS2_NAME.fullmatch(name) for name in names)


def parse_shard(text: str) -> tuple[int, int]:
    """(i, n) of "i/n", 1 <= i <= n."""
    match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--shard must be i/n with 1 <= i <= n, e.g. 2/8, got {text!r}")
    return int(match[1]), int(match[2])


def in_shard(name: str, shard: tuple[int, int]) -> bool:
    """Whether clip `name` belongs to shard i of n: by a hash of the name alone, so that machines
    agree even where their listings of a growing corpus differ.
    """
    return zlib.crc32(name.encode()) % shard[1] == shard[0] - 1


def is_done(folder: str) -> bool:
    """Whether a video has been finished: as one clip, or as pieces."""
    return any(os.path.exists(os.path.join(folder, name)) for name in ("clip.json", "pieces.json"))


def find_clips(preprocessed_root: str) -> list[str]:
    """Names of the finished clips (`dir/video` or `dir/video/piece`), sorted; InputError if none.

    A clip in the making is not one.
    """
    if not os.path.isdir(preprocessed_root):
        raise InputError(f"--preprocessed_root is not a folder: {preprocessed_root}")
    clips = []
    for folder, folders, names in _walk(preprocessed_root):
        if "clip.json" in names:
            clips.append(os.path.relpath(folder, preprocessed_root))
        if "clip.json" in names or folder.endswith(PART) and LOCK in names:
            folders.clear()
    if not clips:
        raise InputError(f"no clip below {preprocessed_root}: run preprocess.py --data_root first")
    return sorted(clips)


def speakers_of(names: Sequence[str], pattern: str | None = None) -> dict[str, str]:
    """Clip name -> who speaks: the first folder (LRS2's <dir>), or what `pattern` finds, a regular
    expression's first group or whole match.
    """
    if not pattern:
        return {name: name.split(os.sep)[0] for name in names}
    try:
        found = {name: re.search(pattern, name) for name in names}
    except re.error as error:
        text = f"--speaker_pattern {pattern!r} is no regular expression: {error}"
        raise InputError(text) from error
    for name, match in found.items():
        if not match:
            raise InputError(f"--speaker_pattern {pattern!r} does not match the clip {name!r}")
    return {name: m[1] if m.groups() and m[1] else m[0] for name, m in found.items()}


def clip_groups(names: Sequence[str], pattern: str | None = None) -> dict[str, str]:
    """Clip name -> what must not be in two splits: the speaker, or, where that is one alone for all
    by the folders, the source video.
    """
    speakers = speakers_of(names, pattern)
    if pattern or len(set(speakers.values())) > 1:
        return speakers
    return {name: os.sep.join(name.split(os.sep)[:2]) for name in names}


def parse_shares(text: str) -> dict[str, float]:
    """{"train": 0.9, ...} of "train=0.9,val=0.05,test=0.05"; InputError unless they add up to 1."""
    parts = (part.strip().partition("=") for part in text.split(","))
    with contextlib.suppress(ValueError):
        shares = {name: float(share) for name, _, share in parts}
        whole = abs(sum(shares.values()) - 1) <= 1e-6 and min(shares.values()) > 0
        if whole and shares.keys() <= set(SPLITS):
            return shares
    raise InputError(
        "--make_filelists takes shares of train, val and test that add up to 1, "
        f"e.g. train=0.9,val=0.05,test=0.05, got {text!r}"
    )


def split_groups(
    groups: dict[str, str], shares: dict[str, float], seed: int = 0
) -> dict[str, list[str]]:
    """Split -> its clip names, sorted: whole groups, seeded, as near to the shares of clips as they
    allow. InputError where there are fewer groups than splits.
    """
    import numpy as np

    sizes = Counter(groups.values())
    if len(sizes) < len(shares):
        raise InputError(
            f"{len(sizes)} speakers or sources cannot fill {len(shares)} splits: a speaker in two "
            "of them would flatter every score; ask for fewer splits, or, where the first folders "
            'are no speakers, split by videos: --speaker_pattern "[^/]+/[^/]+"'
        )
    order = np.random.default_rng(seed).permutation(sorted(sizes)).tolist()
    order.sort(key=lambda group: -sizes[group])  # big ones first: the small ones even out the rest
    room = {split: share * len(groups) for split, share in shares.items()}
    members: dict[str, set[str]] = {split: set() for split in shares}
    for position, group in enumerate(order):
        empty = [split for split in shares if not members[split]]
        left = len(order) - position
        choice = empty if left <= len(empty) else list(shares)  # no split may end up empty
        best = max(choice, key=lambda split: room[split])
        members[best].add(group)
        room[best] -= sizes[group]
    return {
        split: sorted(name for name, group in groups.items() if group in members[split])
        for split in shares
    }


def write_filelists(splits: dict[str, list[str]], folder: str) -> None:
    """<folder>/<split>.txt, one clip name a line, each appearing only when complete."""
    try:
        os.makedirs(folder, exist_ok=True)
        for split, names in splits.items():
            path = os.path.join(folder, f"{split}.txt")
            with replacing(path, "wb") as file:
                file.writelines(os.fsencode(f"{name}\n") for name in names)
    except OSError as error:
        raise InputError(f"cannot write filelists to {folder}: {error.strerror}") from error
