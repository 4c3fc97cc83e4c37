"""pieces: who is followed, where a video is cut; and the timing of what comes out."""

import json
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from conftest import run_script

from face_detection.base import Box
from face_detection.shots import ShotCuts, overlap
from preparation.pieces import MAX_GAP, PieceRules, Pieces

SMALL, LARGE, OTHER = Box(0, 0, 10, 10, 0.9), Box(50, 0, 80, 30, 0.6), Box(90, 90, 99, 99, 0.9)


def cut_up(frames, split=True, longest=1000):
    """(first, boxes, crowded) of the pieces of frames: (cut, boxes) each."""
    pieces = Pieces(PieceRules(split, 1, longest))
    found = [pieces.feed(i, cut, boxes)[0] for i, (cut, boxes) in enumerate(frames)]
    found.append(pieces.end())
    return [(p.first, p.boxes, p.crowded) for p in found if p is not None]


def test_overlap_is_intersection_over_union():
    assert overlap(SMALL, SMALL) == 1 and overlap(SMALL, LARGE) == 0
    assert overlap(SMALL, Box(5, 0, 15, 10, 1)) == pytest.approx(1 / 3)


def test_the_largest_face_is_followed_even_when_a_larger_one_comes():
    huge = Box(100, 100, 300, 300, 0.99)
    frames = [(False, [SMALL, LARGE])] * 3 + [(False, [huge, SMALL, LARGE])] * 3
    assert cut_up(frames) == [(0, [LARGE] * 6, 6)]
    assert cut_up(frames, split=False) == [(0, [LARGE] * 6, 6)]


def test_pieces_end_at_cuts_lost_faces_and_the_limit():
    frames = [(False, [])] * 2 + [(False, [SMALL])] * 5 + [(True, [LARGE])] + [(False, [LARGE])] * 3
    assert cut_up(frames) == [(2, [SMALL] * 5, 0), (7, [LARGE] * 4, 0)]
    assert [piece[:2] for piece in cut_up([(False, [SMALL])] * 7, longest=3)] == [
        (0, [SMALL] * 3), (3, [SMALL] * 3), (6, [SMALL])
    ]  # fmt: skip
    gap = [(False, [SMALL])] * 2 + [(False, [])] * MAX_GAP + [(False, [SMALL])] * 2
    assert cut_up(gap) == [(0, [SMALL] * 2 + [None] * MAX_GAP + [SMALL] * 2, 0)]
    lost = [(False, [SMALL])] * 2 + [(False, [OTHER])] * (MAX_GAP + 3)
    assert cut_up(lost) == [(0, [SMALL] * 2, 0), (2 + MAX_GAP, [OTHER] * 3, 0)]


def test_unsplit_videos_keep_every_frame():
    frames = [(False, []), (False, [SMALL]), (True, [OTHER]), (False, []), (False, [OTHER])]
    assert cut_up(frames, split=False, longest=2) == [(0, [None, SMALL, OTHER, None, OTHER], 0)]


def test_at_the_limit_the_face_that_is_followed_stays_the_one():
    """Though a larger one has come, and though it is not seen at that very moment."""
    frames = [(False, [SMALL])] * 2 + [(False, [SMALL, LARGE])] * 6
    assert cut_up(frames, longest=4) == [(0, [SMALL] * 4, 2), (4, [SMALL] * 4, 4)]
    frames[4:6] = [(False, [LARGE])] * 2
    assert cut_up(frames, longest=4) == [(0, [SMALL] * 4, 2), (6, [SMALL] * 2, 2)]
    cut = [*frames[:4], (True, [SMALL, LARGE]), *frames[5:]]  # another shot: all are new
    assert cut_up(cut, longest=4)[1][1][0] == LARGE
    gone = frames[:4] + [(False, [LARGE])] * (MAX_GAP + 2)
    assert cut_up(gone, longest=4)[1:] == [(4 + MAX_GAP, [LARGE] * 2, 0)]


def test_every_piece_keeps_the_rules():
    rng = np.random.default_rng(0)
    faces = [SMALL, LARGE, OTHER]
    frames = [(rng.random() < 0.05, [f for f in faces if rng.random() < 0.5]) for _ in range(400)]
    pieces = cut_up(frames, longest=40)
    assert len(pieces) > 10
    end = 0
    for first, boxes, _ in pieces:
        assert first >= end and 0 < len(boxes) <= 40 and None not in (boxes[0], boxes[-1])
        assert len({box for box in boxes if box}) == 1 and not any(
            cut for cut, _ in frames[first + 1 : first + len(boxes)]
        )
        end = first + len(boxes)


def test_cuts_are_told_from_motion():
    rng = np.random.default_rng(0)
    scenes = [cv2.GaussianBlur(rng.integers(0, 256, (90, 120, 3), np.uint8), (0, 0), 5) * f
              for f in (1, 2)]  # fmt: skip
    frames = [np.roll(scenes[0], i, axis=1) for i in range(6)] + [scenes[1]] * 3
    shots = ShotCuts()
    assert [shots.feed(i, frame) for i, frame in enumerate(frames)] == [i == 6 for i in range(9)]
    scenedetect = pytest.importorskip("scenedetect")
    theirs = scenedetect.ContentDetector(min_scene_len=0)
    for number, frame in enumerate(frames):
        small = cv2.resize(frame, (160, 120), interpolation=cv2.INTER_AREA)
        found = theirs.process_frame(scenedetect.FrameTimecode(number, fps=25.0), small)
        assert bool(found) == (number == 6)


# Timing: a clapper. The box flashes and the sound clicks at the same known times.
FLASHES = (0.52, 1.24, 1.96, 2.68)  # seconds; whole frames at 25 fps
BOX = [10, 10, 40, 40]


def write_clapper(path, times, late=0.0, ends=3.2, rate=48000, start=0.0):
    """Frames shown at `times` (seconds), stereo sound from `late` to `ends`, all after `start`."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=1000)
        video.width, video.height, video.pix_fmt = 120, 90, "bgr0"
        audio = container.add_stream("pcm_s16le", rate=rate, layout="stereo")
        sound = np.zeros(int(ends * rate), np.int16)
        for flash in FLASHES:
            sound[round(flash * rate) :][:40] = 20000
        sound = np.repeat(sound[round(late * rate) :], 2)[None]
        chunk = av.AudioFrame.from_ndarray(sound, "s16", "stereo")
        chunk.sample_rate, chunk.time_base = rate, Fraction(1, rate)
        chunk.pts = round((start + late) * rate)
        container.mux(audio.encode(chunk))
        for time in times:
            frame = np.full((90, 120, 3), 90, np.uint8)
            if any(0 <= time - flash < 0.0799 for flash in FLASHES):  # two frames at 25 fps
                frame[10:40, 10:40] = 250
            picture = av.VideoFrame.from_ndarray(frame, format="bgr24").reformat(format="bgr0")
            picture.pts, picture.time_base = round((start + time) * 1000), Fraction(1, 1000)
            container.mux(video.encode(picture))
        for stream in (video, audio):
            container.mux(stream.encode(None))
    path.with_suffix(".json").write_text(json.dumps([BOX]))


def flashes_and_clicks(folder):
    """Seconds at which the crops of a clip turn bright, and at which its sound clicks."""
    from scipy.io import wavfile

    count = len(list(folder.glob("*.jpg")))
    light = [cv2.imread(str(folder / f"{i}.jpg")).mean() for i in range(count)]
    bright = [i / 25 for i in range(1, count) if light[i] > 200 > light[i - 1]]
    _, sound = wavfile.read(folder / "audio.wav")
    loud = np.flatnonzero(np.abs(sound) > 5000) / 16000
    return bright, loud[np.insert(np.diff(loud) > 0.1, 0, True)]


def shown_bright(times):
    """Seconds at which flashes begin at 25 fps: each frame shows the nearest source frame."""
    nearest = [min(times, key=lambda t: (abs(t - k / 25), t)) for k in range(int(times[-1] * 25))]
    bright = [any(0 <= time - flash < 0.0799 for flash in FLASHES) for time in nearest]
    return [k / 25 for k in range(1, len(bright)) if bright[k] and not bright[k - 1]]


def variable_times():
    """Seconds of frames at about 22 fps, none of them regular."""
    steps = np.random.default_rng(0).choice([0.033, 0.042, 0.067], 80)
    return np.concatenate([[0], np.cumsum(steps)])


CLAPPERS = {
    "25": (np.arange(80) / 25, {}),
    "30": (np.round(np.arange(96) / 30, 3), {"rate": 44100}),
    "60": (np.round(np.arange(192) / 60, 3), {}),
    "variable": (variable_times(), {}),
    "late_sound": (np.arange(80) / 25, {"late": 0.3}),
    "late_start_early_end": (np.arange(80) / 25, {"ends": 3.0, "start": 1.37}),
}


def prepare_clappers(root, clappers, *argv):
    (root / "in").mkdir()
    for name, (times, options) in clappers.items():
        write_clapper(root / f"in/{name}.mkv", times, **options)
    result = run_script("preprocess.py", "--data_root", root / "in", "--preprocessed_root",
                        root / "out", "--detector", "boxes", *argv)  # fmt: skip
    assert result.returncode == 0, result.stderr
    return root / "out/in"


@pytest.mark.parametrize("split", ["off", "on"])
def test_flash_and_click_stay_together(tmp_path, split):
    folder = prepare_clappers(tmp_path, CLAPPERS, "--split", split)
    for name, (times, _) in CLAPPERS.items():
        bright, clicks = flashes_and_clicks(folder / name)
        np.testing.assert_allclose(clicks, FLASHES, atol=0.001, err_msg=name)
        np.testing.assert_allclose(bright, shown_bright(times), atol=1e-9, err_msg=name)
        np.testing.assert_allclose(bright, clicks, atol=0.041, err_msg=name)


def test_pieces_of_a_long_video_keep_flash_and_click_together(tmp_path):
    clapper = {"clap": CLAPPERS["25"]}
    folder = prepare_clappers(tmp_path, clapper, "--max_seconds", 1.6) / "clap"
    assert sorted(path.name for path in folder.iterdir()) == ["000000", "000040", "pieces.json"]
    pairs = [flashes_and_clicks(folder / first) for first in ("000000", "000040")]
    # the sound goes on for as long as the last frame's mel window does, if there is any
    assert [json.loads((folder / f"{first}/clip.json").read_text())["seconds"]
            for first in ("000000", "000040")] == [1.8, 1.6]  # fmt: skip
    bright, clicks = (np.concatenate(part) for part in zip(*pairs, strict=True))
    np.testing.assert_allclose(bright, [0.52, 1.24, 1.96 - 1.6, 2.68 - 1.6])
    np.testing.assert_allclose(clicks, bright, atol=0.001)


def test_known_boxes_go_by_time(tmp_path):
    """One for each frame of 50 a second, and for each of irregular ones: the face that moves is not
    lost. Lists of another length are refused.
    """
    (tmp_path / "in").mkdir()
    every = {"50": np.arange(160) / 50, "variable": variable_times(), "25": np.arange(80) / 25}
    for name, times in every.items():
        write_clapper(tmp_path / f"in/{name}.mkv", times)
        boxes = [[int(20 * time), 10, int(20 * time) + 30, 40] for time in times]
        (tmp_path / f"in/{name}.json").write_text(json.dumps(boxes))
    write_clapper(tmp_path / "in/resampled.mkv", every["50"])
    (tmp_path / "in/resampled.json").write_text(json.dumps([BOX] * 80))
    write_clapper(tmp_path / "in/other.mkv", every["50"])
    (tmp_path / "in/other.json").write_text(json.dumps([BOX] * 120))
    result = run_script("preprocess.py", "--data_root", tmp_path / "in", "--preprocessed_root",
                        tmp_path / "out", "--detector", "boxes", "--split", "off")  # fmt: skip
    assert "120 boxes" in result.stdout and "160 frames, and 80 at 25 a second" in result.stdout
    for name, times in every.items():
        clip = json.loads((tmp_path / f"out/in/{name}/clip.json").read_text())
        assert clip["faces"] == clip["frames"] >= 80
        shown = [min(times, key=lambda t: (abs(t - k / 25), -t)) for k in range(clip["frames"])]
        assert [box[0] for box in clip["boxes"]] == [int(20 * time) for time in shown]
    assert json.loads((tmp_path / "out/in/resampled/clip.json").read_text())["faces"] == 80


@pytest.mark.corpus
def test_flash_and_click_stay_together_at_the_times_of_real_files(corpus, tmp_path):
    """Clappers whose frames are shown when those of real variable-rate and phone videos are."""
    clappers = {}
    for name in ("vfr_22fps_stock", "vfr_webcam_20s", "fps30_848x782", "fps5994_aoc"):
        with av.open(str(corpus / f"hard/{name}.mp4")) as container:
            packets = container.demux(video=0)
            times = sorted(float(p.pts * p.time_base) for p in packets if p.pts is not None)
        times = np.round(np.array(times) - times[0], 3)
        clappers[name] = times[times < 3.2], {}
    folder = prepare_clappers(tmp_path, clappers, "--split", "off")
    for name, (times, _) in clappers.items():
        bright, clicks = flashes_and_clicks(folder / name)
        np.testing.assert_allclose(clicks, FLASHES, atol=0.001, err_msg=name)
        np.testing.assert_allclose(bright, shown_bright(times), atol=1e-9, err_msg=name)
