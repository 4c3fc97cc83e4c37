"""A check-up of a preprocessed root: will an expert learn from it, and if not, what is to be done?

Every clip is measured, an expert is asked about its sync where one is given, and what lies outside
the bounds of TESTS is told with why it matters and what to do: doctor.txt, doctor.json, doctor.png.
Clips are never changed, and a damaged one is measured as far as it goes.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import shlex
import sys
import textwrap
import wave
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from corpus.clips import Clip, index_clip, open_mel, read_record
from corpus.listing import clip_groups, find_clips, speakers_of
from experts.offset import Expert, load_expert
from face_detection.base import Box
from face_detection.shots import overlap
from hparams import HParams
from media.files import replacing, write_json
from preparation.sync import MIN_CONFIDENCE, judge_all, known_sync, read_lists

LEVELS = ("stop", "warn", "note")
DO = "python preprocess.py --preprocessed_root {root}"
CORRECT = DO + " --correct_sync --expert {expert}"
SPLIT = DO + " --make_filelists train=0.9,val=0.05,test=0.05"
AGAIN = "delete these folders (doctor.json names them) and run preprocess.py again"
LEAVE = "leave them out of the filelists (doctor.json names them)"
ONE = "keep one of each (copies in doctor.json)"
BY_HEART = "the validation then measures what was learned by heart"
TUNE = (
    "fine-tune the released models: python wav2lip_train.py --config configs/finetune.yaml "
    "--data_root {root} --checkpoint_path checkpoints/wav2lip.pth "
    "--checkpoint_dir checkpoints/mine --syncnet_checkpoint_path checkpoints/lipsync_expert.pth"
)


class Test(NamedTuple):
    """A measure of every clip, or one of the corpus, and where it is in order: low <= x <= high.

    levels: the shares of the clips outside, from which the finding has that level (a measure of the
    corpus is outside with a share of 1). "stop" keeps an expert that is trained from scratch from
    converging, or makes its scores worthless; "warn" costs quality; "note" is good to know. Of
    several findings of one code the worst is told, of equals the first.
    """

    code: str
    measure: str
    low: float | None
    high: float | None
    levels: dict[str, float]
    seen: str
    why: str
    do: str

    def fails(self, value: float) -> bool:
        return (self.low is not None and value < self.low) or (
            self.high is not None and value > self.high
        )


# "good" below: 236 real and synthetic clips in order
TESTS = (
    # files
    Test("unusable", "windows", 1, None, {"stop": 0.5, "warn": 0.05, "note": 0},
         "hold no window", "training leaves them out", AGAIN),
    Test("damaged", "faults", None, 0, {"stop": 0.5, "warn": 0.01, "note": 0}, "are damaged",
         "a window of a damaged crop is replaced, a mel of other length is out of step", AGAIN),
    Test("fps", "fps", 25, 25, {"stop": 0}, "are not at 25 frames a second",
         "a window pairs 5 frames with 0.2 s of sound: at another rate they drift apart", AGAIN),
    # sync, after what --correct_sync shifted, of the clips that it kept
    Test("sync_unknown", "judged", 1, None, {"note": 1},
         "nobody has checked that lips and sound are in sync",
         "nothing else decides so often whether an expert converges",
         DO + " --doctor --expert {expert}"),
    Test("unsure", "sure", 1, None, {"stop": 0.5, "warn": 0.2},
         "have lips in which the expert does not recognise the voice",
         "it is not the voice of that face (dubbing, music), or the expert is too weak to tell",
         "try SyncNet v2 or lipsync_expert.pth; --correct_sync leaves these clips out"),
    Test("out_of_sync", "offset", -3, 3, {"stop": 0.2}, "are more than 3 frames out of sync",
         "the expert is told that lips and sound belong together where they do not, and stays at "
         "chance (loss 0.69)", CORRECT),
    Test("out_of_sync", "offset", -1, 1, {"warn": 0.2}, "are more than a frame out of sync",
         "the expert is told that lips and sound belong together where they do not", CORRECT),
    # amount. LRS2's training split, 29 hours of thousands of speakers, takes the expert 150,000
    # steps to leave chance; a sixth of it is learned by heart in that time, as few speakers are
    Test("amount", "minutes", 15, None, {"warn": 1}, "{:.1f} minutes of sound",
         "enough to try the programs with small models (configs/tiny_cpu.yaml), not to train the "
         "full ones", "for more than a trial, " + TUNE),
    Test("amount", "minutes", 300, None, {"warn": 1}, "{:.0f} minutes of sound, LRS2 has 1,740",
         "an expert from scratch learns so little by heart before it learns to listen", TUNE),
    Test("speakers", "speakers", 2, None, {"stop": 1}, "one speaker, by the clips' names",
         "an expert from scratch learns one face and voice by heart and stays at chance on others",
         TUNE + "\n         if they are several: --speaker_pattern tells them apart"),
    Test("speakers", "speakers", 20, None, {"warn": 1}, "{} speakers",
         "what is trained on few speakers fails on others, and so does its validation",
         "add speakers, or " + TUNE),
    Test("one_sided", "largest_share", None, 0.5, {"warn": 1},
         "{:.0%} of the sound is of one speaker", "most of an epoch's windows are of this one",
         "leave some of these clips out of train.txt"),
    # of clips of 1.7 s a tenth of the expert's wrong pairs are off by 2 frames or less; LRS2: 7%
    Test("short_clips", "seconds", 1.7, None, {"warn": 0.5}, "are shorter than 1.7 s",
         "near windows are called out of sync, though nobody could see it: the loss stays high",
         "prefer longer clips: preprocess.py --min_seconds 2"),
    # sound
    Test("silence", "silence_share", None, 0.7, {"stop": 0.5, "warn": 0.01},  # pauses: up to 0.41
         "hold next to no speech", "silence fits any closed mouth: it teaches no sync", LEAVE),
    Test("quiet", "speech_db", -40, None, {"warn": 0.2}, "have speech below -40 dBFS",  # good: -34
         "soft sounds fall below the spectrogram's floor", "amplify, preprocess again"),
    Test("clipped", "clipped_share", None, 0.003, {"warn": 0.05}, "have clipped sound",
         "the distortion fills all mel bands", "take recordings with less gain"),
    Test("sound_short", "sound_missing", None, 0.2, {"warn": 0.05},
         "have sound that ends before the picture", "often a sign of sound that is out of sync",
         "look at the source videos"),
    # faces and pictures
    Test("faceless", "faces_share", 0.9, None, {"warn": 0.05}, "lack the face in many frames",
         "a window needs 5 faces in a row", "try --detector sfd, or leave such videos out"),
    Test("jumping", "jumps", None, 0, {"warn": 0.05}, "have a face whose box leaps",
         "another's lips come under the same voice, or a wall was taken for a face",
         "preprocess with --split on, which cuts where a face is lost"),
    Test("crowded", "other_faces_share", None, 0.5, {"warn": 0.2}, "show other people too",
         "the voice may be another's", "--correct_sync drops clips whose lips fit no voice"),
    Test("small_face", "face_size", 48, None, {"warn": 0.05}, "have a face below 48 pixels",
         "blown up to 96 x 96 it shows no lips", "take larger sources"),
    Test("blurred", "sharpness", 50, None, {"warn": 0.05}, "are blurred",  # good: 117 and more
         "the generator learns to blur", LEAVE),
    Test("exposure", "brightness", 40, 215, {"warn": 0.05}, "are dark or bleached",  # good: 63-180
         "lips hardly differ from skin", "correct it, or " + LEAVE),
    Test("still", "change", 0.5, None, {"warn": 0.01}, "are still pictures",  # talk: 1.8 and more
         "lips that never move fit no speech", LEAVE),
    # copies and lists
    Test("copies", "copies", None, 0, {"warn": 1}, "{} sets of clips have one audio.wav",
         "copies count double; where their pictures differ, one is dubbed", ONE),
    Test("no_filelists", "filelists", 1, None, {"note": 1}, "there are no filelists",
         "training needs train.txt and val.txt, of different speakers", SPLIT),
    Test("leak", "clips_in_two", None, 0, {"warn": 1}, "{} clips are in more than one split",
         BY_HEART, SPLIT),
    Test("leak", "speakers_in_two", None, 0, {"warn": 1},
         "{} speakers or sources are in more than one split", BY_HEART, SPLIT),
    Test("copies_leak", "copies_in_two", None, 0, {"warn": 1},
         "{} sets of copies are in more than one split", BY_HEART, ONE),
    Test("missing", "missing_share", None, 0.5, {"stop": 1}, "a filelist belongs to other data: "
         "{:.0%} of its lines name no clip", "training leaves them out", SPLIT),
    Test("missing", "missing_share", None, 0.01, {"warn": 1},
         "{:.0%} of a filelist's lines name no clip", "training leaves them out", SPLIT),
    Test("dropped_listed", "dropped_listed", None, 0, {"warn": 1},
         "{} lines name clips that --correct_sync dropped", "they are out of sync beyond repair",
         "train with the filelists that --correct_sync wrote"),
    Test("examined", "unexamined", None, 0, {"note": 1}, "{} clips were not looked at",
         "copies among them are not found", "run without --max_clips"),
)  # fmt: skip

SAME_FACE = 0.3  # overlap of two neighbouring boxes; one face's is larger (preparation/pieces.py)
SAMPLES = 8  # crops looked at in each clip
LEVEL_SAMPLES = 400  # 25 ms at 16 kHz, in which the sound's level is taken
SILENCE_DB = 35.0  # so far below a clip's loud parts nobody speaks; quiet rooms hum at -40 and less
FAINTEST_DB = -65.0  # nor below this, whatever the loud parts
FULL_SCALE = 32700  # of 32768; a clipped wave that was resampled no longer meets the last value
SHOWN = 20  # names that are listed of what is wrong with many
WIDTH = 100  # columns of the page; commands are not broken
MEDIANS = ("seconds", "faces_share", "face_size", "sharpness", "brightness", "speech_db",
           "silence_share")  # fmt: skip
HISTOGRAMS = {
    "seconds": "length, s", "face_size": "face, px", "sharpness": "sharpness",
    "brightness": "brightness", "speech_db": "speech, dBFS", "silence_share": "silence",
    "offset": "offset, frames (+: sound early)", "windows": "windows of the expert",
}  # fmt: skip
FAULTS = (OSError, EOFError, ValueError, TypeError, OverflowError, RecursionError, wave.Error)


def examine(
    preprocessed_root: str, out: str, filelists: str | None = None, expert: str | None = None,
    device="cpu", workers: int = 1, max_clips: int = 0, seed: int = 0,
    speaker_pattern: str | None = None,
) -> dict:  # fmt: skip
    """Write doctor.json, doctor.png and doctor.txt into `out`, print the latter, and return what
    doctor.json holds: root, verdict, findings, summary and a row for each clip.

    filelists: folder of train.txt, val.txt, test.txt. expert: checkpoint of a SyncNet_color or
    SyncNet v2, run on `device`. max_clips: look at so many, drawn by seed; 0: at all. InputError
    where there is no clip, OSError where `out` cannot be written.
    """
    hp, names = HParams(), find_clips(preprocessed_root)
    speakers = speakers_of(names, speaker_pattern), clip_groups(names, speaker_pattern)
    os.makedirs(out, exist_ok=True)
    judge = load_expert(expert, device) if expert else None  # before the work: it may be refused
    chosen = names
    if 0 < max_clips < len(names):
        drawn = np.random.default_rng(seed).choice(len(names), max_clips, replace=False)
        chosen = [names[i] for i in sorted(drawn)]
    cv2.setNumThreads(1)  # clips are measured in parallel
    with ThreadPoolExecutor(workers) as pool:
        done = pool.map(lambda name: measure_clip(preprocessed_root, name, hp), chosen)
        clips = list(tqdm(done, None, len(chosen), unit="clip", disable=not sys.stderr.isatty()))
    ask_expert(preprocessed_root, clips, judge, hp, filelists)
    summary = summarise(clips, *speakers, filelists)
    findings = find(clips, summary, preprocessed_root, expert)
    report = {"root": preprocessed_root, "verdict": verdict(findings), "findings": findings}
    report |= {"summary": summary, "clips": clips}
    text = page(report)
    write_json(os.path.join(out, "doctor.json"), report, indent=1)
    with replacing(os.path.join(out, "doctor.txt")) as file:
        file.write(text)
    plot(report, os.path.join(out, "doctor.png"))
    print(f"{text}{out}: doctor.txt, doctor.json, doctor.png")
    return report


# --- one clip


def measure_clip(root: str, name: str, hp: HParams) -> dict:
    """The measures of the clip `<root>/<name>`; what cannot be measured is missing, and "problems"
    says why.
    """
    folder, clip, record = os.path.join(root, name), {"name": name, "windows": 0}, {}
    problems = clip["problems"] = []

    @contextlib.contextmanager
    def using(what: str) -> Iterator[None]:
        try:
            yield
        except FAULTS as error:
            said = " ".join(str(error).split())[:160] or type(error).__name__
            problems.append(f"{what} cannot be used ({said})")

    with using("clip.json"):
        record = read_record(folder)
        _measure_faces(clip, record)
    with using("audio.wav"):
        _measure_sound(clip, os.path.join(folder, "audio.wav"), _number(record, "seconds"))
    with using("mel.npy"):
        _measure_mel(clip, np.array(open_mel(folder, hp.num_mels)), hp)
    found, generator = (index_clip(folder, hp, strict) for strict in (False, True))
    if isinstance(found, Clip):
        clip["windows"] = len(found.usable)
        clip["windows_generator"] = len(generator.usable) if isinstance(generator, Clip) else 0
        with using("a crop"):
            _measure_pictures(clip, found)
        if clip.get("faces", len(found.frames)) != len(found.frames):
            problems.append(f"clip.json has {clip['faces']} boxes for {len(found.frames)} crops")
    else:
        clip["unusable"] = found
    clip["faults"] = len(problems)
    return {key: round(x, 4) if isinstance(x, float) else x for key, x in clip.items()}


def _number(record: dict, key: str) -> float | None:
    value = record.get(key)
    known = isinstance(value, int | float) and not isinstance(value, bool)
    return value if known and 0 <= value <= 1e9 else None  # NaN is not


def _measure_faces(clip: dict, record: dict) -> None:
    """From the boxes: share of frames with a face, size, leaps."""
    clip["fps"] = _number(record, "fps")
    boxes = record["boxes"] if isinstance(record.get("boxes"), list) else []
    sides = np.array([box or [np.nan] * 4 for box in boxes], float)
    if sides.ndim != 2 or sides.shape[1] != 4:
        raise ValueError("it has no boxes")
    size = (sides[:, 2:] - sides[:, :2]).min(1)  # (frames,)
    seen = np.isfinite(size)
    if not (size[seen] > 0).all() or seen.sum() != sum(box is not None for box in boxes):
        raise ValueError("a box has no area")
    clip["frames"], clip["faces"] = len(boxes), int(seen.sum())
    clip["faces_share"] = float(seen.mean())
    if seen.any():
        clip["face_size"] = float(np.median(size[seen]))
    faces = [Box(*box, 0) for box in sides.tolist()]  # NaN where there is none: no leap
    clip["jumps"] = sum(overlap(*pair) < SAME_FACE for pair in itertools.pairwise(faces))
    others = _number(record, "other_faces")
    if others is not None:
        clip["other_faces_share"] = min(1.0, others / len(boxes))


def _measure_sound(clip: dict, path: str, expected: float | None) -> None:
    """Length, level, silence, clipping."""
    with wave.open(path, "rb") as file:
        kind = file.getframerate(), file.getnchannels(), file.getsampwidth()
        if kind != (16000, 1, 2):
            raise ValueError("{} Hz, {} channels, {} bytes a sample".format(*kind))
        content = file.readframes(file.getnframes())
    sound = np.frombuffer(content[: len(content) // 2 * 2], "<i2")
    steps = sound[: len(sound) // LEVEL_SAMPLES * LEVEL_SAMPLES].reshape(-1, LEVEL_SAMPLES)
    if not len(steps):
        raise ValueError("no sound")
    clip["seconds"] = len(sound) / 16000
    clip["digest"] = hashlib.sha256(content).hexdigest()
    if clip.get("frames"):
        clip["sound_missing"] = clip["frames"] / 25 - clip["seconds"]
    power = ((steps / 32768.0) ** 2).mean(1)
    level = 10 * np.log10(power + 1e-10)
    silent = level < max(np.percentile(level, 95) - SILENCE_DB, FAINTEST_DB)
    clip["silence_share"] = float(silent.mean())
    if not silent.all():
        clip["speech_db"] = float(10 * np.log10(power[~silent].mean()))
    clip["clipped_share"] = float((np.abs(sound.astype(int)) >= FULL_SCALE).mean())
    if expected is not None and abs(expected - clip["seconds"]) > 0.1:
        raise ValueError(f"it holds {clip['seconds']:.2f} s of {expected:.2f} s")


def _measure_mel(clip: dict, mel: np.ndarray, hp: HParams) -> None:
    """Whether it is in range and as long as the sound."""
    if not len(mel) or not np.abs(mel).max() <= hp.max_abs_value + 0.01:  # NaN is not
        raise ValueError(f"values outside of +-{hp.max_abs_value:g}")
    rows = int(16000 * clip.get("seconds", 0)) // hp.hop_size + 1
    if "seconds" in clip and abs(rows - len(mel)) > 4:
        raise ValueError(f"{len(mel)} rows, audio.wav makes {rows}")


def _measure_pictures(clip: dict, found: Clip) -> None:
    """Of SAMPLES crops at even distances, as training sees them: sharpness, brightness, change."""
    frames = found.frames[((np.arange(SAMPLES) + 0.5) * len(found.frames) / SAMPLES).astype(int)]
    for path in map(found.frame_path, frames):
        with open(path, "rb") as file:  # decoders fill the rest of a truncated JPEG with grey
            if file.read()[-2:] != b"\xff\xd9":
                raise ValueError(f"{path} is truncated")
    greys = [cv2.cvtColor(found.read(frame, 1)[0], cv2.COLOR_BGR2GRAY) for frame in frames.tolist()]
    clip["sharpness"] = float(np.median([cv2.Laplacian(g, cv2.CV_32F).var() for g in greys]))
    clip["brightness"] = float(np.mean(greys))
    small = [cv2.resize(grey, (8, 8), interpolation=cv2.INTER_AREA) for grey in greys]
    clip["change"] = float(np.abs(np.diff(np.float32(small), axis=0)).mean())


def ask_expert(
    root: str, clips: Sequence[dict], expert: Expert | None, hp: HParams, filelists: str | None
) -> None:
    """Each clip's sync as this expert sees it, or as it is known from a correction
    (preparation/sync.py): by how many frames the sound that training hears by these lists is early,
    and whether the expert is sure; not of a clip that the correction dropped.
    """
    usable = [clip for clip in clips if clip["windows"]]
    judged = known = known_sync(filelists, root) if filelists else {}
    if expert:
        judged = judge_all(root, [clip["name"] for clip in usable], expert, hp, known)
    for clip in usable:
        found = {"shift": 0, "kept": True} | known.get(clip["name"], {})
        found |= judged.get(clip["name"], {})
        if "reason" in found:
            clip["not_judged"] = found["reason"]
        elif "offset" in found:
            fields = ("offset", "confidence", "shift", "kept", "expert")
            clip["sync"] = {field: found[field] for field in fields}
            sure = expert is None or found["confidence"] >= MIN_CONFIDENCE[expert.kind]
            if found["kept"]:
                clip["sure"] = int(sure)
            if found["kept"] and sure:
                clip["offset"] = found["offset"] - found["shift"]


# --- all of them


def summarise(
    clips: Sequence[dict], speakers: dict[str, str], groups: dict[str, str], filelists: str | None
) -> dict:
    """The numbers about the corpus. Of all clips of the root, examined or not, speakers: who they
    are of; groups: what must not be in two splits.
    """

    def counted(measure: str) -> dict:
        return dict(Counter(clip[measure] for clip in clips if measure in clip).most_common())

    def median(values: list[float]) -> float | None:
        return float(np.median(values)) if values else None

    def in_two(owner: dict[str, str]) -> list[str]:
        """Whose clips are in more than one split."""
        names = Counter(
            who for names in lists.values() for who in {owner.get(n) for n in names} - {None}
        )
        return sorted(name for name, splits in names.items() if splits > 1)

    usable = [clip for clip in clips if clip["windows"]]
    sync = [clip["sync"] for clip in clips if "sync" in clip]
    minutes: Counter = Counter()
    for clip in usable:
        minutes[speakers[clip["name"]]] += clip.get("seconds", 0.0) / 60
    sounds = defaultdict(list)  # digest -> clips
    for clip in clips:
        sounds[clip.pop("digest", clip["name"])].append(clip["name"])
    copies = [names for names in sounds.values() if len(names) > 1]
    largest = max(minutes.values()) if len(minutes) > 1 else 0.0  # one is another finding
    lists = read_lists(filelists) if filelists else {}
    lists = {split: [name for name, _ in entries] for split, entries in lists.items()}
    missing = {split: [n for n in names if n not in groups] for split, names in lists.items()}
    dropped = {clip["name"] for clip in clips if not clip.get("sync", {"kept": True})["kept"]}
    return {
        "found": len(groups),
        "examined": len(clips),
        "unexamined": len(groups) - len(clips),
        "usable": len(usable),
        "unusable": counted("unusable"),
        "problems": {clip["name"]: clip["problems"] for clip in clips if clip["problems"]},
        "windows_expert": sum(clip["windows"] for clip in clips),
        "windows_generator": sum(clip.get("windows_generator", 0) for clip in clips),
        "minutes": sum(minutes.values()),
        "speakers": len(minutes) or None,
        "minutes_of": dict(minutes.most_common()),
        "largest_share": largest / (sum(minutes.values()) or 1),
        "medians": {name: median([c[name] for c in usable if name in c]) for name in MEDIANS},
        "judged": len(sync),
        "not_judged": counted("not_judged"),
        "experts": sorted({found["expert"] for found in sync}),
        "confidence": median([found["confidence"] for found in sync]),
        "shifted": sum(found["shift"] != 0 for found in sync),
        "dropped": sum(not found["kept"] for found in sync),
        "offsets": {f"{offset:+d}": n for offset, n in counted("offset").items()},
        "copies": copies,
        "filelists": len(lists),
        "lines": {split: len(names) for split, names in lists.items()},
        "missing": {split: names[:SHOWN] for split, names in missing.items()},
        "missing_share": max((len(missing[s]) / (len(lists[s]) or 1) for s in lists), default=0.0),
        "dropped_listed": sum(name in dropped for names in lists.values() for name in names),
        "clips_in_two": in_two({name: name for names in lists.values() for name in names}),
        "speakers_in_two": in_two(groups),
        "copies_in_two": [c for c in copies if sum(bool({*c} & {*n}) for n in lists.values()) > 1],
    }


def find(clips: Sequence[dict], summary: dict, root: str, expert: str | None) -> list[dict]:
    """The findings, worst first: those of TESTS that are not passed."""
    paths = {"root": shlex.quote(root), "expert": shlex.quote(expert) if expert else "E"}
    usable = [clip for clip in clips if clip["windows"]]
    findings = []
    for test in TESTS:
        if test.measure in summary:
            value = summary[test.measure]
            value = len(value) if isinstance(value, list) else value
            share = float(value is not None and test.fails(value))
            seen = test.seen.format(value)
        else:
            of = clips if test.measure in ("windows", "faults") else usable
            of = [clip for clip in of if clip.get(test.measure) is not None]
            wrong = [clip["name"] for clip in of if test.fails(clip[test.measure])]
            share = len(wrong) / (len(of) or 1)
            seen = f"{len(wrong)} of {len(of)} clips ({share:.1%}) {test.seen}"
            seen += f", e.g. {wrong[0]}" if wrong else ""
        reached = [level for level, least in test.levels.items() if share and share >= least]
        if reached:
            finding = {"level": reached[0], "code": test.code, "seen": seen, "why": test.why}
            findings.append(finding | {"do": test.do.format(**paths)})
    findings.sort(key=lambda finding: LEVELS.index(finding["level"]))
    first = {finding["code"]: finding for finding in reversed(findings)}
    return [finding for finding in findings if finding is first[finding["code"]]]


def verdict(findings: Sequence[dict]) -> str:
    """One line: what stops a training, or what it should mind."""
    levels = {level: [f for f in findings if f["level"] == level] for level in LEVELS}
    if levels["stop"]:
        return "verdict: not ready to train: " + "; ".join(f["seen"] for f in levels["stop"])
    spoken = "verdict: ready to train"
    if levels["warn"]:
        spoken += ", but mind: " + ", ".join(finding["code"] for finding in levels["warn"])
    if any(finding["code"] == "sync_unknown" for finding in findings):
        spoken += "; first ask an expert whether lips and sound are in sync"
    return spoken


# --- the page and the picture


def page(report: dict) -> str:
    """The page of text: numbers, findings, verdict."""
    s = report["summary"]
    medians = (f"{name} {'?' if x is None else f'{x:.4g}'}" for name, x in s["medians"].items())
    sync = [f"{s['judged']} clips judged by {', '.join(s['experts']) or 'no expert'}"]
    if s["judged"]:
        sure = sum(s["offsets"].values())
        sync.append(f"median confidence {s['confidence']:.2f}, sure of {sure}")
        sync.append(f"corrected before: {s['shifted']} shifted, {s['dropped']} dropped")
    for common, count in list(s["offsets"].items())[:1]:
        how = f"{'early' if common[0] == '+' else 'late'} by {common[1:]} frames"
        how = "in time" if common == "+0" else how
        sync.append(f"most often, in {count}, the sound is {how}")
    sync += [f"{count} not judged: {why}" for why, count in s["not_judged"].items()]
    clips = [f"{s['usable']} usable"] + [f"{n}: {why}" for why, n in s["unusable"].items()]
    rows = {
        "clips": "; ".join(clips),
        "windows": f"{s['windows_expert']} (expert), {s['windows_generator']} (generator)",
        "amount": f"{s['minutes']:.1f} minutes, {len(s['minutes_of'])} speakers",
        "medians": ", ".join(medians),
        "sync": "; ".join(sync),
        "filelists": ", ".join(f"{k} {n} lines" for k, n in s["lines"].items()) or "none",
    }
    lines = [f"{report['root']}: {s['examined']} of {s['found']} clips examined", ""]
    for name, text in rows.items():
        lines += textwrap.wrap(f"{name:10}{text}", WIDTH, subsequent_indent=" " * 10)
    for f in report["findings"]:
        seen = f"{f['level'].upper()} {f['code']}: {f['seen']}"
        lines += ["", *textwrap.wrap(seen, WIDTH, subsequent_indent=" " * 5)]
        lines += textwrap.wrap(f"     why: {f['why']}", WIDTH, subsequent_indent=" " * 10)
        lines.append(f"     do:  {f['do']}")
    return "\n".join([*lines, "", report["verdict"], ""])


def plot(report: dict, path: str) -> None:
    """Histograms of the clips' measures with the bounds of TESTS, 1200 x 600."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 4, figsize=(12, 6), layout="constrained")
    for axis, (name, title) in zip(axes.flat, HISTOGRAMS.items(), strict=True):
        values = [clip[name] for clip in report["clips"] if clip.get(name) is not None]
        bins = np.arange(-15.5, 16.5) if name == "offset" else 30
        axis.hist(values, bins, color="#4878a8", ec="#4878a8")
        for bound in {bound for t in TESTS if t.measure == name for bound in (t.low, t.high)} - {
            None
        }:
            axis.axvline(bound, color="#b04040", ls="--", lw=1)
        axis.set(title=title, ylabel="clips")
    title = textwrap.fill(textwrap.shorten(f"{report['root']}: {report['verdict']}", 220), 120)
    figure.suptitle(title.replace("$", r"\$"))
    figure.savefig(path, dpi=100, format="png")
    plt.close(figure)
