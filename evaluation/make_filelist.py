"""Draw pairs of speech and face from any tree of videos, as a list for gen_videos_from_filelist.

    python -m evaluation.make_filelist --data_root mvlrs_v1/main --split_list filelists/test.txt \\
        --out unpaired.txt --pairs 3000 --different_speakers
    python -m evaluation.make_filelist --data_root videos --out paired.txt --pairs 100 --same

Each line is `audio video`, below DATA_ROOT and without ending. The draw depends on the videos'
names and --seed alone. Every video serves before one serves twice; no clip meets its own sound, and
no pair comes twice. With --same every clip meets its own sound: for reconstruction.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence

import numpy as np

from errors import InputError, require_file, run_cli
from evaluation.pairs import resolve


class Clips:
    """Names and paths of the videos to draw from, looked into only when drawn.

    videos: (clip name, path), sorted, as find_videos gives them; the first folder of a name is its
    speaker.
    """

    def __init__(self, videos: Sequence[tuple[str, str]]) -> None:
        self.paths = [path for _, path in videos]
        speakers = [name.split(os.sep)[0] for name, _ in videos]
        self.speakers = np.unique(speakers, return_inverse=True)[1]  # (N,) numbers
        self._seconds: dict[int, tuple[float, bool]] = {}

    def _probe(self, index: int) -> tuple[float, bool]:
        """Seconds (negative: no video that decodes) and whether there is sound."""
        from media.read import probe

        if index not in self._seconds:
            try:
                info = probe(self.paths[index])
            except InputError:
                self._seconds[index] = (-1.0, False)
            else:
                self._seconds[index] = (info.duration, info.has_audio)
        return self._seconds[index]

    def seconds(self, index: int) -> float:
        return self._probe(index)[0]

    def is_video(self, index: int) -> bool:
        return self._probe(index)[0] >= 0

    def has_audio(self, index: int) -> bool:
        return self._probe(index)[1]


def draw_pairs(
    clips: Clips, count: int, seed: int, different_speakers: bool = False, same: bool = False
) -> list[tuple[int, int]]:
    """`count` pairs of clip numbers (audio, video); InputError where the clips give fewer."""
    rng = np.random.default_rng(seed)
    pairs: list[tuple[int, int]] = []
    met: dict[int, set[int]] = {}  # by video: clips whose sound it has had, and itself
    left = rng.permutation(len(clips.paths))
    while len(left):
        again = []
        for video in map(int, left):
            if same:
                audio = video if clips.has_audio(video) else None
            else:
                used = met.setdefault(video, {video})
                audio = _draw_audio(clips, video, used, rng, different_speakers)
            if audio is None:
                continue
            again.append(video)
            pairs.append((audio, video))
            if len(pairs) == count:
                return pairs
        left = rng.permutation([] if same else again)
    raise InputError(
        f"{len(clips.paths)} videos give only {len(pairs)} of {count} pairs: each needs a video "
        f"that decodes and {'its own sound' if same else 'the sound of another'}"
        + (" speaker (first folder)" if different_speakers else "")
    )


def _draw_audio(
    clips: Clips, video: int, used: set[int], rng: np.random.Generator, different_speakers: bool
) -> int | None:
    """A clip with sound that `video` has not met; None where there is none left."""
    if not clips.is_video(video):
        return None
    allowed = np.ones(len(clips.paths), bool)
    if different_speakers:
        allowed = clips.speakers != clips.speakers[video]
    allowed[list(used)] = False
    for audio in map(int, rng.permutation(np.flatnonzero(allowed))):
        used.add(audio)  # also where it is silent: not to be asked again
        if clips.has_audio(audio):
            return audio
    return None


def list_name(path: str, data_root: str) -> str:
    """What a filelist calls a video: its path below the root, without ending where one fits."""
    name = os.path.relpath(path, data_root)
    if "\t" in name or "\n" in name:
        raise InputError(f"a filelist cannot name {path!r}: rename it without tabs and line ends")
    if name.startswith("#"):
        name = f"./{name}"
    stem = os.path.splitext(name)[0]
    found = resolve(data_root, stem)
    return stem if found and os.path.samefile(found, path) else name


def read_videos(data_root: str, split_list: str | None) -> list[tuple[str, str]]:
    """(clip name, path) below the root, all or those of a split's filelist (`dir/video` a line)."""
    from corpus.listing import find_videos
    from hparams import get_image_list

    if not os.path.isdir(data_root):
        raise InputError(f"--data_root is not a folder: {data_root}")
    videos = find_videos(data_root)
    if split_list is None:
        return videos
    require_file(split_list, "split list")
    folder, name = os.path.split(split_list)
    if not name.endswith(".txt"):
        raise InputError(f"--split_list is a filelist like test.txt, not {split_list}")
    named = {os.path.normpath(n) for n in get_image_list("", name[: -len(".txt")], folder)}
    chosen = [video for video in videos if video[0] in named]
    if not chosen:
        raise InputError(f"no clip of {split_list} is a video below {data_root}")
    if len(chosen) < len(named):
        print(f"{len(named) - len(chosen)} of {len(named)} clips of {split_list} have no video")
    return chosen


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Draw pairs of speech and face from videos.")
    add = parser.add_argument
    add("--data_root", required=True, help="folder of videos, searched to the bottom")
    add("--split_list", help="draw from the clips of this filelist only, e.g. filelists/test.txt")
    add("--out", required=True, help="the list to write")
    add("--pairs", type=int, default=100, help="how many; default %(default)s")
    add("--seed", type=int, default=0)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument(
        "--different_speakers",
        action="store_true",
        help="the sound of another speaker: of another first folder",
    )
    kind.add_argument("--same", action="store_true", help="each clip with its own sound")
    return parser


def main(args: argparse.Namespace) -> None:
    from media.files import replacing

    if args.pairs < 1 or args.seed < 0:
        raise InputError("--pairs must be at least 1 and --seed at least 0")
    videos = read_videos(args.data_root, args.split_list)
    clips = Clips(videos)
    pairs = draw_pairs(clips, args.pairs, args.seed, args.different_speakers, args.same)
    names = {index: list_name(clips.paths[index], args.data_root) for p in pairs for index in p}
    try:
        os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
        with replacing(args.out) as file:
            for audio, video in pairs:
                line = (names[audio], names[video])
                blank = any(len(name.split()) != 1 for name in line)
                file.write(("\t" if blank else " ").join(line) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {args.out}: {error.strerror}") from error
    longer = sum(clips.seconds(audio) > clips.seconds(video) for audio, video in pairs)
    print(f"{args.out}: {len(pairs)} pairs of {len(videos)} videos")
    if longer:
        print(f"in {longer} the sound is longer than the video: the unpaired protocol skips those")


if __name__ == "__main__":
    run_cli(main, get_args_parser())
