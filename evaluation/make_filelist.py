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
import functools
import os

import numpy as np

from errors import InputError, require_file, run_cli
from evaluation.pairs import resolve

Video = tuple[str, str]  # clip name (its first folder is the speaker), path


@functools.cache
def seconds(path: str) -> tuple[float, float]:
    """(of the picture, of the sound), -1 where there is none; looked into when drawn."""
    from media.read import probe

    try:
        info = probe(path)
    except InputError:
        return -1.0, -1.0
    return info.duration, info.duration if info.has_audio else -1.0


def draw_pairs(
    videos: list[Video], count: int, seed: int, different_speakers: bool = False, same: bool = False
) -> list[tuple[str, str]]:
    """`count` pairs of paths (audio, video); InputError where the videos give fewer."""
    rng = np.random.default_rng(seed)
    paths = [path for _, path in videos]
    speakers = np.array([name.split(os.sep)[0] for name, _ in videos])
    met = {video: {video} for video in range(len(videos))}  # itself, and whose sound it has had
    pairs: list[tuple[str, str]] = []
    left = rng.permutation(len(paths))
    while len(left):
        again = []
        for video in map(int, left):
            if seconds(paths[video])[0] < 0:
                continue
            allowed = (speakers != speakers[video]) | (not different_speakers)
            allowed[list(met[video])] = False
            others = [video] if same else rng.permutation(np.flatnonzero(allowed)).tolist()
            for audio in others:
                met[video].add(audio)  # also where it is silent: not to be asked again
                if seconds(paths[audio])[1] >= 0:
                    again.append(video)
                    pairs.append((paths[audio], paths[video]))
                    break
            if len(pairs) == count:
                return pairs
        left = rng.permutation([] if same else again)
    raise InputError(
        f"{len(paths)} videos give only {len(pairs)} of {count} pairs: each needs a video "
        f"that decodes and {'its own sound' if same else 'the sound of another'}"
        + (" speaker (first folder)" if different_speakers else "")
    )


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


def read_videos(data_root: str, split_list: str | None) -> list[Video]:
    """The videos below the root, all or those of a split's filelist (`dir/video` a line)."""
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
    from lipsync.options import natural, positive

    parser = argparse.ArgumentParser(description="Draw pairs of speech and face from videos.")
    add = parser.add_argument
    # fmt: off
    add("--data_root", required=True, help="folder of videos, searched to the bottom")
    add("--split_list", help="draw from the clips of this filelist only, e.g. filelists/test.txt")
    add("--out", required=True, help="the list to write")
    add("--pairs", type=positive, default=100, help="how many; default %(default)s")
    add("--seed", type=natural, default=0)
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--different_speakers", action="store_true",
        help="the sound of another speaker: of another first folder")
    kind.add_argument("--same", action="store_true", help="each clip with its own sound")
    # fmt: on
    return parser


def main(args: argparse.Namespace) -> None:
    from media.files import replacing

    videos = read_videos(args.data_root, args.split_list)
    pairs = draw_pairs(videos, args.pairs, args.seed, args.different_speakers, args.same)
    os.makedirs(os.path.dirname(os.path.abspath(args.out)), exist_ok=True)
    with replacing(args.out) as file:
        for pair in pairs:
            names = [list_name(path, args.data_root) for path in pair]
            blank = any(len(name.split()) != 1 for name in names)
            file.write(("\t" if blank else " ").join(names) + "\n")
    longer = sum(seconds(audio)[1] > seconds(video)[0] for audio, video in pairs)
    print(f"{args.out}: {len(pairs)} pairs of {len(videos)} videos")
    if longer:
        print(f"in {longer} the sound is longer than the video: the unpaired protocol skips those")


if __name__ == "__main__":
    run_cli(main, get_args_parser())
