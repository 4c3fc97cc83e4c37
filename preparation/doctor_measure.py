"""What the doctor measures on one clip: its record, faces, pictures, sound and windows.

Nothing here raises for a damaged clip: what cannot be measured stays None, and `problems` says why.
"""

from __future__ import annotations

import json
import math
import os
import wave
from dataclasses import dataclass, field

import numpy as np

from corpus.clips import Clip, index_clip, open_mel
from hparams import HParams
from preparation.doctor_hint import hint_sums, mouth_motion, sound_level

RECORD_BYTES = 2**26  # of clip.json, at most; an hour's boxes take 2 MB
SAME_FACE = 0.3  # overlap of two neighbouring boxes; one face's is larger (preparation/pieces.py)
NEAR = 2  # frames; a window that is no further off is called out of sync, but hardly is
MEL_AGREES = 0.6  # correlation of mel.npy's loudness with audio.wav's; real clips have 0.75 to 1
POWER_OF_MEL = 1.25  # decades a unit: 8 units are 100 dB (audio.py)
SAMPLES = 8  # crops looked at in each clip
SAMPLE_RATE = 16000
LEVEL_SAMPLES = 400  # 25 ms, in which the sound's level is taken
FLOOR_DB = -100.0  # digital silence
SILENCE_DB = 35.0  # so far below a clip's loud parts nobody speaks; quiet rooms hum at -40 and less
FAINTEST_DB = -65.0  # nor below this, whatever the loud parts
FULL_SCALE = 32700  # of 32768; a clipped wave that was resampled no longer meets the last value
BLACK, WHITE = 2, 253  # grey levels


@dataclass
class Measures:
    """One clip's numbers; None: could not be measured. The vectors serve to compare clips."""

    name: str
    problems: list[str] = field(default_factory=list)
    source: str | None = None
    first_frame: int = 0  # of the source, at which the clip begins
    fps: float | None = None
    frames: int | None = None
    faces_share: float | None = None  # of the frames
    other_faces_share: float | None = None  # of the frames: somebody else is to be seen too
    face_size: float | None = None  # shorter side of the boxes in pixels, median
    jumps: int | None = None  # frames at which the box leaps: another person, or no face at all
    sharpness: float | None = None  # variance of the Laplacian at 96 x 96, median of the samples
    brightness: float | None = None  # mean grey, 0..255
    dark_share: float | None = None  # of the pixels: black
    bright_share: float | None = None  # of the pixels: white
    change: float | None = None  # grey levels by which the samples differ; 0: a still picture
    seconds: float | None = None  # of sound
    speech_db: float | None = None  # RMS of what is not silence, dBFS; None: all is
    peak_db: float | None = None  # dBFS
    clipped_share: float | None = None  # of the samples
    silence_share: float | None = None  # of the time
    dc: float | None = None  # mean of the wave, full scale 1
    windows_expert: int = 0
    windows_generator: int = 0
    near_negatives: float | None = None  # of the expert's wrong pairs: at most NEAR frames off
    unusable: str | None = None  # why it holds no window
    sync: dict | None = None  # offset, confidence, shift, kept, expert
    sound_vector: np.ndarray | None = None
    picture_vector: np.ndarray | None = None
    look_vector: np.ndarray | None = None
    hint: np.ndarray | None = None

    def row(self) -> dict:
        """The numbers as JSON takes them, without the vectors."""
        return {
            name: round(value, 4) if isinstance(value, float) else value
            for name, value in vars(self).items()
            if not name.endswith("_vector") and name != "hint"
        }


def measure_clip(root: str, name: str, hp: HParams, hint: bool) -> Measures:
    """All measures of the clip `<root>/<name>`. hint: also what the sync hint needs, for which all
    its crops are read; otherwise a few are looked at.
    """
    import cv2

    cv2.setNumThreads(1)  # clips are measured in parallel
    folder, measures = os.path.join(root, name), Measures(name)
    record = _read_record(folder, measures)
    _measure_faces(record, measures)
    sound = read_sound(os.path.join(folder, "audio.wav"), measures)
    measure_sound(sound, measures, _number(record, "seconds"))
    mel = _read_mel(folder, measures, hp)
    _compare_mel(mel, sound, measures, hp)
    clip = _count_windows(folder, measures, hp)
    if clip is None or mel is None:
        return measures
    measures.sound_vector = sound_vector(mel)
    measure_pictures(clip, measures)
    if hint:
        try:
            motion = mouth_motion(clip)
        except (OSError, ValueError) as error:
            measures.problems.append(f"a crop cannot be read ({short(error)})")
        else:
            measures.hint = hint_sums(motion, sound_level(mel, len(motion)))
    return measures


def short(error: BaseException) -> str:
    """An error's message on one line, not too long."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def _read_record(folder: str, measures: Measures) -> dict:
    """clip.json, or {} with a problem noted."""
    path = os.path.join(folder, "clip.json")
    try:
        if os.path.getsize(path) > RECORD_BYTES:
            raise ValueError(f"{os.path.getsize(path)} bytes")
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        if not isinstance(record, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        measures.problems.append(f"clip.json cannot be read ({short(error)})")
        return {}
    source = record.get("source")
    measures.source = source if isinstance(source, str) and len(source) < 5000 else None
    measures.first_frame = int(_number(record, "first_frame") or 0)
    measures.fps = _number(record, "fps")
    measures.sync = _sync_record(record.get("sync"))
    return record


def _number(record: dict, key: str) -> float | None:
    """A number of the record, 0 <= x <= 1e9, or None."""
    value = record.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if 0 <= value <= 1e9 else None  # NaN is neither


def _sync_record(sync: object) -> dict | None:
    """What an earlier --correct_sync wrote, if it is whole (preparation/sync.py)."""
    if not isinstance(sync, dict):
        return None
    offset, confidence, shift = (sync.get(key) for key in ("offset", "confidence", "shift"))
    if type(offset) is not int or type(shift) is not int or max(abs(offset), abs(shift)) > 1000:
        return None
    if not isinstance(confidence, int | float) or not math.isfinite(confidence):
        return None
    return {
        "offset": offset,
        "confidence": round(float(confidence), 4),
        "shift": shift,
        "kept": sync.get("kept") is not False,
        "expert": str(sync.get("expert"))[:80],
    }


def _measure_faces(record: dict, measures: Measures) -> None:
    """From the boxes: share of frames with a face, size, leaps."""
    boxes = record.get("boxes")
    if not isinstance(boxes, list) or not boxes:
        if record:
            measures.problems.append("clip.json has no boxes")
        return
    sides = np.full((len(boxes), 4), np.nan)  # x1, y1, x2, y2
    for i, box in enumerate(boxes):
        if box is None:
            continue
        try:
            x1, y1, x2, y2 = (float(side) for side in box)
        except (TypeError, ValueError, OverflowError):
            x1 = y1 = x2 = y2 = 0.0
        if not 0 < min(x2 - x1, y2 - y1) <= max(x2 - x1, y2 - y1) < 1e5:
            measures.problems.append(f"clip.json: the box of frame {i} is none")
            return
        sides[i] = x1, y1, x2, y2
    size = np.minimum(sides[:, 2] - sides[:, 0], sides[:, 3] - sides[:, 1])
    seen = np.isfinite(size)
    measures.frames = len(boxes)
    measures.faces_share = float(seen.mean())
    measures.face_size = float(np.median(size[seen])) if seen.any() else None
    measures.jumps = int((_overlaps(sides[:-1], sides[1:]) < SAME_FACE).sum())
    others = _number(record, "other_faces")
    measures.other_faces_share = None if others is None else min(1.0, others / len(boxes))


def _overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (N, 4), pair by pair: (N,); NaN where one is missing."""
    sides = np.minimum(a[:, 2:], b[:, 2:]) - np.maximum(a[:, :2], b[:, :2])  # (N, 2)
    common = np.maximum(sides, 0).prod(1)
    areas = (a[:, 2:] - a[:, :2]).prod(1) + (b[:, 2:] - b[:, :2]).prod(1)
    return common / (areas - common)


def _read_mel(folder: str, measures: Measures, hp: HParams) -> np.ndarray | None:
    """float32 (T, num_mels), or None with a problem noted."""
    try:
        mel = np.array(open_mel(folder, hp.num_mels), np.float32)
    except (OSError, ValueError) as error:
        measures.problems.append(f"mel.npy cannot be used ({short(error)})")
        return None
    if not len(mel) or not np.abs(mel).max() <= hp.max_abs_value + 0.01:  # NaN is not
        measures.problems.append(f"mel.npy has values outside of +-{hp.max_abs_value:g}")
        return None
    return mel


def _compare_mel(
    mel: np.ndarray | None, sound: np.ndarray | None, measures: Measures, hp: HParams
) -> None:
    """Whether mel.npy is the spectrogram of audio.wav, by length and loudness."""
    if mel is None or sound is None:
        return
    rows = len(sound) // 200 + 1
    if abs(rows - len(mel)) > 4:
        measures.problems.append(f"mel.npy has {len(mel)} rows, audio.wav makes {rows}")
        return
    shift = round(measures.sync["shift"] * 3.2) if measures.sync else 0  # rows it was delayed by
    wave = sound.astype(np.float32)
    wave[1:] -= hp.preemphasis * wave[:-1]
    power = (wave[: len(wave) // 200 * 200].reshape(-1, 200) ** 2).mean(1)
    heard = np.log(power[:-1] + power[1:] + 1)[max(0, -shift) :]  # around the samples 200, 400 ...
    seen = np.log((10 ** (POWER_OF_MEL * mel)).sum(1))[1:][max(0, shift) :]
    count = min(len(heard), len(seen))
    heard, seen = heard[:count], seen[:count]
    if count > 20 and min(heard.std(), seen.std()) > 0.3:
        agreement = np.corrcoef(heard, seen)[0, 1]
        if agreement < MEL_AGREES:
            measures.problems.append(f"mel.npy is not audio.wav's (they agree by {agreement:.2f})")


def _count_windows(folder: str, measures: Measures, hp: HParams) -> Clip | None:
    clip = index_clip(folder, hp, individual_mels=False)
    if not isinstance(clip, Clip):
        measures.unusable = clip
        return None
    if measures.faces_share is not None:
        boxes = round(measures.faces_share * measures.frames)
        if boxes != len(clip.frames):
            measures.problems.append(f"clip.json has {boxes} boxes for {len(clip.frames)} crops")
    generator = index_clip(folder, hp, individual_mels=True)
    measures.windows_expert = len(clip.usable)
    measures.windows_generator = len(generator.usable) if isinstance(generator, Clip) else 0
    starts, others = clip.starts, len(clip.starts) - 1  # a wrong window begins at any other start
    near = sum((starts[gap:] - starts[:-gap] <= NEAR).sum() for gap in range(1, NEAR + 1))
    measures.near_negatives = float(2 * near / (len(starts) * others))
    return clip


def measure_pictures(clip: Clip, measures: Measures) -> None:
    """Sharpness, exposure and the vectors of SAMPLES crops at even distances, as training sees
    them: at img_size.
    """
    import cv2

    greys, faults = [], []
    for i in range(SAMPLES):
        frame = int(clip.frames[int((i + 0.5) * len(clip.frames) / SAMPLES)])
        try:
            _require_whole(clip.frame_path(frame))
            greys.append(cv2.cvtColor(clip.read(frame, 1)[0], cv2.COLOR_BGR2GRAY))
        except (OSError, ValueError) as error:
            faults.append(error)
    if faults:
        count = f"{len(faults)} of {SAMPLES} crops looked at"
        measures.problems.append(f"{count} cannot be read ({short(faults[0])})")
    if not greys:
        return
    stack = np.stack(greys)  # (S, H, W) uint8
    measures.sharpness = float(np.median([cv2.Laplacian(g, cv2.CV_32F).var() for g in greys]))
    measures.brightness = float(stack.mean())
    measures.dark_share = float((stack <= BLACK).mean())
    measures.bright_share = float((stack >= WHITE).mean())
    if len(greys) == SAMPLES:  # all at the same moments, else copies would not look alike
        changes = np.diff([_shrink(grey, 8) for grey in greys], axis=0)  # (S - 1, 8, 8)
        measures.change = float(np.abs(changes).mean())
        measures.picture_vector = _unit(changes, least=1.0)
        measures.look_vector = _unit(_shrink(stack.mean(0), 24), least=1.0)


def _require_whole(path: str) -> None:
    """ValueError where a JPEG ends early: decoders fill the rest with grey and say nothing."""
    with open(path, "rb") as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - 2))
        if file.read() != b"\xff\xd9":
            raise ValueError(f"{path} is truncated")


def _shrink(picture: np.ndarray, size: int) -> np.ndarray:
    import cv2

    return cv2.resize(picture.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)


def _unit(values: np.ndarray, least: float) -> np.ndarray | None:
    """values less their mean as a float16 vector of length 1; None where their standard deviation
    is below `least`, because rounding would then decide.
    """
    flat = values.astype(np.float32).ravel()
    flat = flat - flat.mean()
    if flat.std() < least:
        return None
    return (flat / np.linalg.norm(flat)).astype(np.float16)


def sound_vector(mel: np.ndarray, steps: int = 32, bands: int = 16) -> np.ndarray | None:
    """How the timbre of a mel (T, 80) moves in time, as a unit vector (steps * bands,).

    Each band less its mean, then each step less its own, so that neither gain and filters nor
    loudness count: sentences of one rhythm are loud in step. Nearly the same for a copy that was
    encoded again. None for silence and steady tones.
    """
    import cv2

    if len(mel) < steps:
        return None
    coarse = cv2.resize(np.ascontiguousarray(mel), (bands, steps), interpolation=cv2.INTER_AREA)
    moving = coarse - coarse.mean(0)
    return _unit(moving - moving.mean(1, keepdims=True), least=0.1)


def read_sound(path: str, measures: Measures) -> np.ndarray | None:
    """int16 (n,), or None with a problem noted."""
    try:
        with wave.open(path, "rb") as file:
            kind = file.getframerate(), file.getnchannels(), file.getsampwidth()
            if kind != (SAMPLE_RATE, 1, 2):
                raise wave.Error("{} Hz, {} channels, {} bytes a sample".format(*kind))
            content = file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error, RuntimeError) as error:
        measures.problems.append(f"audio.wav cannot be used ({short(error)})")
        return None
    sound = np.frombuffer(content[: len(content) // 2 * 2], "<i2")
    if len(sound) < LEVEL_SAMPLES:
        measures.problems.append("audio.wav holds no sound")
        return None
    return sound


def measure_sound(sound: np.ndarray | None, measures: Measures, seconds: float | None) -> None:
    """Level, silence and faults of int16 (n,). seconds: what there should be by clip.json."""
    if sound is None:
        return
    measures.seconds = len(sound) / SAMPLE_RATE
    if seconds is not None and abs(seconds - measures.seconds) > 0.1:
        measures.problems.append(f"audio.wav holds {measures.seconds:.2f} s of {seconds:.2f} s")
    samples = sound.astype(np.float32) / 32768
    steps = samples[: len(samples) // LEVEL_SAMPLES * LEVEL_SAMPLES].reshape(-1, LEVEL_SAMPLES)
    power = (steps**2).mean(1)
    level = 10 * np.log10(power + 10 ** (FLOOR_DB / 10))
    silent = level < max(np.percentile(level, 95) - SILENCE_DB, FAINTEST_DB)
    measures.silence_share = float(silent.mean())
    if not silent.all():
        measures.speech_db = float(10 * np.log10(power[~silent].mean()))
    peak = np.abs(sound.astype(np.int32))
    measures.peak_db = float(max(FLOOR_DB, 20 * np.log10(max(1e-9, peak.max() / 32768))))
    measures.clipped_share = float((peak >= FULL_SCALE).mean())
    measures.dc = float(samples.mean())
