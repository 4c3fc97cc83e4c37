"""Which speech meets which face: the lists of the paper's test sets and of real videos.

Every line is a pair; blank lines and lines that begin with # are skipped, and still count as lines.
Names are separated by blanks, or by tabs where names have blanks in them.

    unpaired        audio_clip video_clip   LRS2, LRS3: `dir/00001`; LRW: `ABOUT_00001`; no ending
    random, tts     video audio             file names
    dubbed          video                   its own audio
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

from corpus.listing import VIDEO_ENDINGS
from errors import InputError
from media.lists import join_listed, read_lines

COLUMNS = {
    "unpaired": ("audio", "video"),
    "random": ("video", "audio"),
    "tts": ("video", "audio"),
    "dubbed": ("video",),
}
LRW_NAME = re.compile(r"([A-Z]+)_\d{5}")


@dataclass(frozen=True)
class Pair:
    """index: line of the list, from 0; audio and video: the names as the list has them."""

    index: int
    audio: str
    video: str

    def __str__(self) -> str:
        return f"{self.index} {self.audio} {self.video}"


def read_pairs(path: str | os.PathLike, kind: str = "unpaired") -> list[Pair]:
    """The pairs of a list of one of the kinds above; InputError naming the line at fault."""
    columns = COLUMNS[kind]
    pairs = []
    for index, line in enumerate(read_lines(path, "filelist", " \n")):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        names = line.split("\t") if "\t" in line else line.split()
        names = [name.strip() for name in names if name.strip()]
        if len(names) != len(columns):
            raise InputError(
                f"filelist {path}, line {index + 1}: {len(names)} names where "
                f"`{' '.join(columns)}` is expected (names with blanks: put tabs between)"
            )
        named = dict(zip(columns, names, strict=True))
        pairs.append(Pair(index, named.get("audio", named["video"]), named["video"]))
    if not pairs:
        raise InputError(f"filelist {path} names nothing")
    return pairs


def resolve(root: str | os.PathLike, name: str) -> str | None:
    """The file that a list calls `name`, below `root`; None where there is none.

    The name may lack a video's ending (.mp4 is looked for first). LRW's `ABOUT_00001` may lie in
    `ABOUT/test/`, as in its archive.
    """
    found = LRW_NAME.fullmatch(name)
    for candidate in (name, f"{found[1]}/test/{name}") if found else (name,):
        for ending in ("", *VIDEO_ENDINGS):
            path = join_listed(root, candidate + ending)
            if os.path.isfile(path):
                return path
    return None


def require_some(pairs: Sequence[Pair], video_root: str, audio_root: str) -> None:
    """InputError where no pair has both of its files: then a root is wrong, not the pairs."""
    roots = {"--data_root": video_root, "--audio_root": audio_root}
    for flag, root in roots.items():
        if not os.path.isdir(root):
            raise InputError(f"{flag} is not a folder: {root}")
    if not any(resolve(video_root, p.video) and resolve(audio_root, p.audio) for p in pairs):
        where = video_root if video_root == audio_root else f"{video_root} and {audio_root}"
        raise InputError(
            f"none of the {len(pairs)} pairs of the list lies below {where} (the first: "
            f"{pairs[0].audio}, {pairs[0].video}); is it another --data_root?"
        )
