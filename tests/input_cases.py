"""The faces and audios of test_inputs.py: how each file is made, and what becomes of it."""

from __future__ import annotations

import os
import zipfile
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from conftest import GOLDEN

FACE = cv2.imread(str(GOLDEN / "inference" / "face.png"))  # (256, 256, 3), a face at BOX
BOX = {"box": (40, 200, 60, 190)}
FLAT = np.full_like(FACE, 120)
SECONDS = 0.6


def moving(count, picture=FACE):
    return [np.roll(picture, 2 * number, axis=1) for number in range(count)]


def video(path, frames, rate=25, codec="libx264", fmt="yuv420p", times=None, full=False, **options):
    """times: of the frames, in milliseconds, for a variable rate."""
    with av.open(str(path), "w") as container:
        rate = Fraction(rate).limit_denominator(1001)
        stream = container.add_stream(codec, rate=1000 if times else rate, options=options)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = fmt
        if full:
            stream.codec_context.color_range = 2
        for number, frame in enumerate(frames):
            kind = "gray" if frame.ndim == 2 else "bgr24"
            picture = av.VideoFrame.from_ndarray(frame, format=kind)
            picture = picture.reformat(format=fmt, dst_color_range=2 if full else None)
            picture.pts = times[number] if times else number
            picture.time_base = Fraction(1, 1000) if times else 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def tones(path, rate=16000, channels=1, seconds=SECONDS, codec=None, level=0.3):
    """Another sweep in each channel; without `codec` a WAV of 16 bits."""
    t = np.arange(round(rate * seconds)) / rate
    wave = [level * np.sin(2 * np.pi * (150 + 90 * c) * t * (1 + t)) for c in range(channels)]
    wave = np.array(wave, np.float32)
    with av.open(str(path), "w") as container:
        layout = {1: "mono", 2: "stereo", 6: "5.1"}[channels]
        stream = container.add_stream(codec or "pcm_s16le", rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def turned(path):
    """A video lying on its side, and the mark of a phone that says so."""
    from test_media import patch_matrix

    patch_matrix(video(path, [np.ascontiguousarray(np.rot90(f)) for f in moving(6)]))


def two_faces():
    return [np.hstack((FACE, FACE[:, ::-1]))] * 15


def picture(content, *flags):
    return lambda path: cv2.imwrite(str(path), content, *flags)


def raw(content):
    return lambda path: path.write_bytes(content)


def archive(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("me.mp4", "x" * 1000)


def start_of(maker, share, tail="part"):
    """The first `share` of the bytes of a file."""

    def make(path):
        maker(path)
        path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])

    return make


def clip(count=6, frames=None, **options):
    return lambda path: video(path, moving(count) if frames is None else frames, **options)


def sound(**options):
    return lambda path: tones(path, **options)


HD4 = cv2.resize(FACE, (3840, 2160))
ALPHA = np.dstack((FACE, np.tile(np.arange(256, dtype=np.uint8), (256, 1))))
QUIET = {"x265-params": "log-level=error"}
CUTS = [FACE] * 5 + [np.roll(FACE[:, ::-1], 40, axis=0) // 2] * 5 + [FLAT] * 5
# name of the file -> how it is made; one of them at a time is face or audio, the other is plain
FACES = {
    "picture.png": (picture(FACE), 15, BOX),
    "picture.jpg": (picture(FACE), 15, {}),
    "alpha.png": (picture(ALPHA), 15, BOX),
    "16 bit.png": (picture(FACE.astype(np.uint16) * 257), 15, {}),
    "grey.png": (picture(cv2.cvtColor(FACE, cv2.COLOR_BGR2GRAY)), 15, {}),
    "picture.webp": (picture(FACE), 15, BOX),
    "picture.bmp": (picture(FACE), 15, BOX),
    "picture.tiff": (picture(FACE), 15, BOX),
    "picture at 30.png": (picture(FACE), 18, BOX | {"fps": 30.0}),
    "a picture named.mp4": (lambda path: cv2.imwrite(f"{path}.png", FACE)
                            and os.replace(f"{path}.png", path), 15, BOX),
    "animated.gif": (clip(codec="gif", fmt="rgb8", rate=10), 6, BOX),
    "one frame.gif": (clip(1, codec="gif", fmt="rgb8", rate=10), 15, BOX),
    "plain.mp4": (clip(15), 15, {}),
    "no face in some frames.mp4": (clip(frames=[FACE] * 5 + [FLAT] * 20), 15, {"det_every": 1}),
    "no face in some frames, hold.mp4": (
        clip(frames=[FACE] * 5 + [FLAT] * 20), 15, {"no_face": "hold"}),
    "shot cuts.mp4": (clip(frames=CUTS), 15, {}),
    "several faces, the second.mp4": (clip(frames=two_faces()), 15, {"face_index": 1}),
    "several faces, the right one.mp4": (clip(frames=two_faces()), 15, {"target": (400, 100)}),
    "variable rate.mkv": (clip(7, codec="ffv1", fmt="bgr0", times=[0, 40, 80, 120, 400, 440, 480]),
                          None, BOX),
    "turned by a phone.mp4": (turned, 15, {}),
    "odd sizes.mkv": (clip(frames=[FACE[:233, :201]] * 6, codec="ffv1", fmt="bgr0"), 15, BOX),
    "alpha.mkv": (clip(codec="ffv1", fmt="bgra"), 15, BOX),
    "grey.mkv": (clip(codec="ffv1", fmt="gray"), 15, {}),
    "hevc 10 bit.mp4": (clip(codec="libx265", fmt="yuv420p10le", **QUIET), 15, BOX),
    "h264 10 bit.mkv": (clip(fmt="yuv422p10le"), 15, BOX),
    "prores.mov": (clip(codec="prores_ks", fmt="yuv422p10le"), 15, BOX),
    "vp9.webm": (clip(codec="libvpx-vp9", **{"cpu-used": "8", "deadline": "realtime"}), 15, BOX),
    "mpeg4.avi": (clip(codec="mpeg4"), 15, BOX),
    "motion jpeg.avi": (clip(codec="mjpeg", fmt="yuvj420p"), 15, BOX),
    "4k.mp4": (clip(frames=[HD4] * 2, preset="ultrafast"), 2, BOX | {"pad": "trim"}),
    "60 fps.mp4": (clip(40, rate=60), 36, BOX),
    "23.976 fps.mp4": (clip(15, rate=24000 / 1001), 14, BOX),
    "12.5 fps.mp4": (clip(rate=12.5), 8, BOX),
    "one frame.mp4": (clip(1), 15, BOX),
    "cut after its index.mkv": (start_of(clip(15, codec="ffv1", fmt="bgr0"), 0.5), 15, BOX),
    "name ü 測試 (1) 'x' %d.mp4": (clip(), 15, BOX),
    "shorter, loop.mp4": (clip(4), 15, BOX | {"pad": "loop"}),
    "shorter, bounce.mp4": (clip(4), 15, BOX | {"pad": "bounce"}),
    "shorter, hold.mp4": (clip(4), 15, BOX | {"pad": "hold"}),
    "shorter, trim.mp4": (clip(4), 4, BOX | {"pad": "trim"}),
    "shorter, stretch.mp4": (clip(4), 15, BOX | {"pad": "stretch"}),
    "longer, loop.mp4": (clip(20), 15, BOX | {"pad": "loop"}),
    "longer, trim.mp4": (clip(20), 15, BOX | {"pad": "trim"}),
    "longer, stretch.mp4": (clip(20), 15, BOX | {"pad": "stretch"}),
    "no face.mp4": (clip(frames=[FLAT] * 3), "no face found in any frame", {}),
    "no face.png": (picture(FLAT), "no face found in", {}),
    "no such face index.mp4": (clip(), "no --face_index 3", {"face_index": 3}),
    "pads that leave nothing.mp4": (clip(), "leave nothing", {"pads": (0, 0, 0, -300)}),
    "a rate asked for.mp4": (clip(15), 18, BOX | {"fps": 30.0}),
    "empty.mp4": (raw(b""), "empty (0 bytes)", BOX),
    "text.mp4": (raw(b"just text\n" * 99), "cannot be decoded", BOX),
    "page.mp4": (raw(b"<!DOCTYPE html><html></html>"), "cannot be decoded", BOX),
    "text.png": (raw(b"just text\n" * 99), "cannot be decoded", BOX),
    "archive.mp4": (archive, "cannot be decoded", BOX),
    "cut before its index.mp4": (start_of(clip(), 0.5), "cannot be decoded", BOX),
    "half.png": (start_of(picture(FACE), 0.5), "cannot be decoded", BOX),
    "sound.wav": (sound(), "no video track", BOX),
    "folder.mp4": (Path.mkdir, "is a folder", BOX),
    "missing.mp4": (lambda path: None, "not found", BOX),
    "small.png": (picture(FACE[:9, :9]), "does not lie inside", BOX),
    "divided away.png": (picture(FACE), "leaves nothing", BOX | {"resize_factor": 300}),
    "cropped away.png": (picture(FACE), "leaves nothing", BOX | {"crop": (300, 400, 0, -1)}),
    "fps 0.png": (picture(FACE), "frames a second", BOX | {"fps": 0.0}),
    "fps nan.png": (picture(FACE), "frames a second", BOX | {"fps": float("nan")}),
}  # fmt: skip
AUDIOS = {
    "30 ms.wav": (sound(seconds=0.03), 1),
    "silence.wav": (sound(level=0), 15),
    "stereo 96 kHz.wav": (sound(rate=96000, channels=2), 15),
    "stereo 192 kHz.flac": (sound(rate=192000, channels=2, codec="flac"), 15),
    "mono 8 kHz.wav": (sound(rate=8000), 15),
    "stereo 44.1 kHz.m4a": (sound(rate=44100, channels=2, codec="aac"), 15),
    "5.1.wav": (sound(rate=48000, channels=6), 15),
    "floats.wav": (sound(codec="pcm_f32le"), 15),
    "opus.webm": (sound(rate=48000, codec="libopus"), 15),
    "not as long as a frame.wav": (sound(seconds=0.001), 1),
    "without sound.mp4": (clip(), "no audio track"),
    "picture.png": (picture(FACE), "cannot be decoded|no audio track"),
    "empty.wav": (raw(b""), "empty (0 bytes)"),
    "text.mp3": (raw(b"just text\n" * 99), "cannot be decoded|no audio|no sound"),
    "page.wav": (raw(b"<!DOCTYPE html><html></html>"), "cannot be decoded"),
    "archive.wav": (archive, "cannot be decoded"),
    "head only.wav": (lambda path: tones(path) and path.write_bytes(path.read_bytes()[:44]),
                      "no sound|cannot be decoded"),
    "cut.wav": (start_of(sound(), 0.5), 7),
    "folder.wav": (Path.mkdir, "is a folder"),
    "missing.wav": (lambda path: None, "not found"),
}  # fmt: skip
# real clips as they come; the words of those that are refused, the others are made
HARD = {
    "0382925a_ați_găsit_vreodată_un_trifoi_cu_patru_foi.mp4": "no face",
    "audioonly_in_mp4.mp4": "no video track",
    "audioonly_pcm.mov": "no video track",
    "concert_many_faces.mp4": 12,
    "cuts_leah_crop1.mp4": 10,
    "cuts_leah_crop2.mp4": 10,
    "fps15_noaudio_lipreadingorg.mp4": 6,
    "fps30_848x782.mp4": 12,
    "fps5994_aoc.mp4": 24,
    "hevc_1080x1920_30fps_seated.mp4": 12,
    "lfs_pointer_not_video.flv": "cannot be decoded",
    "lipmismatch_stock_actress.mp4": 12,
    "mismatched_merkel_9.avi": 10,
    "mouthcrop_only.mp4": 10,
    "music_not_speech_d12.mp4": 10,
    "naïve clip ü 測試 01 (copy).mpg": 10,
    "noaudio_mpeg1_640x480.mpg": 12,
    "noaudio_portrait_720x1280.mp4": 12,
    "noaudio_tightcrop_129.mp4": 12,
    "noface_cartoon_bbb.mp4": "no face",
    "noface_traffic_41s.mp4": "no face",
    "noisy_speech_restaurant.mp4": 10,
    "overlapped_two_speakers_cut.mp4": 10,
    "painting_monalisa_noaudio.mp4": 10,
    "pip_graphics_1080p.mp4": 12,
    "profile_vox2.mp4": 10,
    "rotmeta90_portrait.mp4": 12,
    "silent_15fps_60s.mp4": 6,
    "silentaudio_d18.mp4": 12,
    "truncated_55pct_decodes.mpg": 10,
    "truncated_60pct_noindex.mp4": "cannot be decoded",
    "twofaces_debate_ac3.avi": 10,
    "twofaces_splitscreen_interview.mp4": 10,
    "uhd4k_sideways.mov": "no face",
    "veryshort_silent_16frames.mp4": 12,
    "vfr_22fps_stock.mp4": 12,
    "vfr_webcam_20s.mp4": 12,
    "voiceover_interpreter.mp4": 12,
    "anamorphic_sar64x45.mpg": 10,
    "channels_change_mid.aac": 52,
    "frame_size_changes.ts": 10,
    "hdr_hlg_bt2020_10bit.mov": 10,
    "photo.heic": "convert it to JPEG",
    "rate_changes_mid.mp3": 53,
    "still_one_frame.gif": 10,
    "vfr_mean_6fps.mp4": 10,
    "zero_bytes.mp4": "empty",
}
