"""How fast the data sets hand out training samples: `python benchmark.py data`."""

from __future__ import annotations

import argparse
import glob
import math
import multiprocessing
import os
import tempfile
from dataclasses import dataclass

from benchmarks.common import add_shared, best_times, call_seconds, circumstances, report
from errors import InputError
from hparams import HParams

CROP = 120  # px, about an LRS2 face
CLIP_SECONDS = 8
SPAN = 0.2  # seconds; of many such spans the best counts: in the others somebody else was busy too


CLIPS = ("data_root", "filelists", "workers", "clips")  # flags: what is loaded, and by how many


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shared(parser, *CLIPS, "json", span=5.0, of="for each figure")


def measure(args: argparse.Namespace) -> None:
    """Print samples a second of each way to read them, and what a loader's worker takes."""
    import cv2
    import torch

    from datasets import SyncNetDataset, Wav2LipDataset

    cv2.setNumThreads(0)  # "one process" is to mean one thread
    torch.set_num_threads(1)
    hp, facts = HParams(num_workers=args.workers), circumstances()
    with tempfile.TemporaryDirectory() as folder:
        write_clips(args, folder)
        where = (args.data_root, "train", hp, args.filelists)
        generator, expert = Wav2LipDataset(*where), SyncNetDataset(*where)
        heard = [c for c in generator.clips if os.path.exists(os.path.join(c.folder, "audio.wav"))]
        released = ReleasedWay(heard, hp)
        ways = {"generator": generator, "generator, released way": released, "expert": expert}
        rows = [{"samples": name} | speed(data, hp, args.seconds)
                for name, data in ways.items() if len(data)]  # fmt: skip
    workers = f"{args.workers} worker{'s' * (args.workers > 1)} /s"
    columns = {
        "samples": "samples", "one process /s": "alone", workers: "loaded",
        "MB a worker": "shared_mb", "its own MB": "own_mb",
    }  # fmt: skip
    report(
        args, "training samples a second", facts, [(rows, columns)],
        f"One process: the best {SPAN:g} s of {args.seconds:g}; workers: the mean. MB a worker: "
        "a page that n processes share counts 1/n; its own MB: pages that it shares with none.",
        data=rows,
    )  # fmt: skip


def write_clips(args: argparse.Namespace, root: str) -> None:
    """Where no --data_root is given: synthetic clips of 8 s below `root` as preprocess.py leaves
    them, with crops of LRS2's size, and their lists; args then names them.
    """
    import cv2
    import numpy as np
    from tqdm import tqdm

    from audio import melspectrogram, save_wav
    from corpus.listing import write_filelists
    from synthetic.corpus import clip_name, synthesize_clip

    if args.data_root is not None:
        return
    args.data_root = args.filelists = root
    names = [clip_name(speaker, 1) for speaker in range(args.clips)]
    write_filelists({"train": names, "val": names}, root)
    for speaker, name in enumerate(tqdm(names, "clips", disable=None)):
        frames, wave, truth = synthesize_clip(0, speaker, 1, CLIP_SECONDS, (256,))
        folder = os.path.join(root, name)
        os.makedirs(folder)
        for number, (frame, box) in enumerate(zip(frames, truth["boxes"], strict=True)):
            x1, y1, x2, y2 = map(int, box)
            crop = cv2.resize(frame[y1:y2, x1:x2], (CROP, CROP), interpolation=cv2.INTER_CUBIC)
            path = os.path.join(folder, f"{number}.jpg")
            cv2.imwrite(path, crop, [cv2.IMWRITE_JPEG_QUALITY, 95])
        save_wav(wave, os.path.join(folder, "audio.wav"))
        np.save(os.path.join(folder, "mel.npy"), melspectrogram(wave).T)


@dataclass
class ReleasedWay:
    """The generator's samples with the work that the released loader does for each: it lists the
    folder, decodes the ten crops in full, and makes the mel of the whole clip from its audio.wav.
    """

    clips: list
    hp: HParams
    bad_clips: int = 0

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, key: tuple[int, int]) -> dict:
        import librosa
        import numpy as np

        from audio import crop_audio_window, melspectrogram
        from corpus.clips import get_window, read_window
        from datasets import get_segmented_mels

        clip, hp = self.clips[key[1]], self.hp
        listed = set(glob.glob(os.path.join(clip.folder, "*.jpg")))
        early = clip.usable[: len(clip.usable) // 2 + 1]  # where any mel of the clip has its rows
        starts, windows = np.random.default_rng(key).choice(early, 2).tolist(), []
        for first in starts:
            paths = [path for path in get_window(clip.frame_path(first)) if path in listed]
            window = read_window(paths, hp.img_size).astype(np.float32) / 255
            windows.append(window.transpose(3, 0, 1, 2))  # (3, T, H, W)
        wav, _ = librosa.load(os.path.join(clip.folder, "audio.wav"), sr=hp.sample_rate)
        mel = melspectrogram(wav, hp).T  # (rows, 80)
        masked = windows[0].copy()
        masked[:, :, hp.img_size // 2 :] = 0
        return {
            "x": np.concatenate([masked, windows[1]]),
            "indiv_mels": get_segmented_mels(mel, starts[0]).transpose(0, 2, 1)[:, None],
            "mel": crop_audio_window(mel, starts[0]).T[None],
            "y": np.ascontiguousarray(windows[0]),
        }


def speed(dataset, hp: HParams, seconds: float) -> dict[str, float]:
    """Samples a second in this process and through a loader; MB of its greediest worker: its
    proportional set size (Linux only), and what it shares with nobody.
    """
    import psutil

    from training.setup import EndlessSampler, train_batches

    keys = iter(EndlessSampler(len(dataset), hp.seed))
    once = {"": lambda: dataset[next(keys)]}
    alone = best_times(once, math.ceil(seconds / SPAN), "spans", min(seconds, SPAN))[""]
    batches = train_batches(dataset, hp.batch_size, hp, 0)
    for _ in range(4 * hp.num_workers + 1):  # the workers start; more than they may keep ready
        next(batches)
    loaded = call_seconds(lambda: next(batches), seconds)
    workers = multiprocessing.active_children()
    found = [psutil.Process(worker.pid).memory_full_info() for worker in workers]
    shared, own = max((getattr(info, "pss", math.nan), info.uss) for info in found)
    batches.close()
    if dataset.bad_clips:
        raise InputError(f"{dataset.bad_clips} clips could not be read: measure sound ones")
    return {
        "alone": 1 / alone, "loaded": hp.batch_size / loaded,
        "shared_mb": shared / 2**20, "own_mb": own / 2**20,
    }  # fmt: skip
