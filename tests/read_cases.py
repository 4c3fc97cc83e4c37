"""The files of test_inputs.py that are read and no more: how each is made, what is asked of it and
what the answer is. An answer that begins with "refused: " is the words of an InputError.
"""

from __future__ import annotations

import os
import shutil
import struct
import threading
from fractions import Fraction

import av
import cv2
import numpy as np
from conftest import REPOSITORY
from input_cases import FACE, moving, raw, start_of, tones, video
from PIL import Image, ImageCms
from test_media import patch_matrix

from audio import speech_chunks
from live.sound import _standard_input
from media.picture import is_image, read_image
from media.read import audio_format, count_frames, iter_audio, iter_frames, load_audio, probe
from models.checkpoint import load_generator, read_checkpoint

SMALL = cv2.resize(FACE, (64, 64), interpolation=cv2.INTER_AREA)
QUARTERS = np.zeros((48, 32, 3), np.uint8)  # upright: no turn or mirror of it is the same
QUARTERS[:24, :16], QUARTERS[:24, 16:], QUARTERS[24:, :16] = 60, 140, 220
PLAIN = {"codec": "ffv1", "fmt": "bgr0"}


# what is asked
def quarters(path):
    """The grey levels of the four corners as shown."""
    _, frame = next(iter_frames(path))
    h, w = (side // 4 for side in frame.shape[:2])
    levels = [frame[y, x].mean() for y in (h, 3 * h) for x in (w, 3 * w)]
    return [int(round(float(level) / 20) * 20) for level in levels]


def shape(path):
    info, (_, frame) = probe(path), next(iter_frames(path))
    assert (info.height, info.width) == frame.shape[:2]
    return info.width, info.height


def shapes(path):
    return sorted({frame.shape[:2] for _, frame in iter_frames(path)})


def fps(path):
    return round(probe(path).fps, 2)


def seconds(path):
    """Of the picture, at 25 frames a second."""
    return round(count_frames(path, 25) / 25, 1)


def heard(path):
    return round(len(load_audio(path)) / 16000, 1)


def level(path):
    """The loudest sample, to a tenth."""
    return round(float(np.abs(load_audio(path)).max()), 1)


def distinct(path):
    """How many frames a video shows that are not alike; "picture" for a picture."""
    return "picture" if is_image(path) else len({f.tobytes() for _, f in iter_frames(path)})


def colour(path):
    """BGR in the middle of a picture."""
    image = read_image(path)
    return image[image.shape[0] // 2, image.shape[1] // 2].tolist()


def corners(path):
    image = read_image(path)
    h, w = (side // 4 for side in image.shape[:2])
    levels = [image[y, x].mean() for y in (h, 3 * h) for x in (w, 3 * w)]
    return [int(round(float(level) / 20) * 20) for level in levels]


def piped(path):
    """(rate, channels, samples, tenths of the loudest) of a file on standard input."""
    read, write = os.pipe()
    data = path.read_bytes()

    def feed():
        with os.fdopen(write, "wb") as pipe:
            pipe.write(data)

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()

    class Never:
        def is_set(self):
            return False

        def wait(self, seconds):
            return False

    with os.fdopen(read, "rb") as pipe:
        sound = _standard_input(pipe.fileno(), 16000, lambda: 0.0)
        wav = np.concatenate([piece for _, piece in sound.pieces(Never())])
    return sound.rate, sound.channels, len(wav), round(float(np.abs(wav).max()), 1)


def off_by(truth):
    """How far the first frame is from the SDR picture it was made of, in grey levels: below 5."""

    def look(path):
        _, frame = next(iter_frames(path))
        return float(np.abs(frame.astype(float) - truth).mean()) < 5

    return look


# how it is made
def shown_by(matrix, picture):
    """An mp4 of a stored picture with a display matrix (a, b, c, d)."""

    def make(path):
        patch_matrix(video(path, [np.ascontiguousarray(picture)] * 2, crf="1"), matrix)

    return make


def anamorphic(ratio, size=(64, 48), matrix=None):
    def make(path):
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = *size, "yuv420p"
            stream.codec_context.sample_aspect_ratio = Fraction(*ratio)
            for _ in range(2):
                frame = np.zeros((size[1], size[0], 3), np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="bgr24")))
            container.mux(stream.encode(None))
        if matrix:
            patch_matrix(path, matrix)

    return make


def hdr(transfer):
    """SMALL, 203 cd/m2 its white, as PQ or HLG of BT.2020, 10 bits; formulas of BT.2100."""

    def make(path):
        light = (SMALL[..., ::-1] / 255.0) ** 2.4
        if transfer != 1:
            to_wide = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114],
                                [0.0164, 0.0880, 0.8956]])  # fmt: skip
            light = light @ to_wide.T * 203
        if transfer == 16:
            y = (light / 10000) ** 0.1593017578125
            code = ((0.8359375 + 18.8515625 * y) / (1 + 18.6875 * y)) ** 78.84375
        elif transfer == 18:
            luminance = (light @ (0.2627, 0.6780, 0.0593))[..., None] / 1000
            scene = light / 1000 * np.maximum(luminance, 1e-9) ** (1 / 1.2 - 1)
            a, b, c = 0.17883277, 0.28466892, 0.55991073
            high = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
            code = np.where(scene <= 1 / 12, np.sqrt(3 * scene), high)
        else:
            code = light ** (1 / 2.4)
        rgb = np.rint(np.clip(code, 0, 1) * 65535).astype(np.uint16)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("ffv1", rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 64, "gbrp10le"
            stream.codec_context.color_trc = transfer
            stream.codec_context.color_primaries = 1 if transfer == 1 else 9
            for _ in range(2):
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb48le")
                container.mux(stream.encode(frame.reformat(format="gbrp10le")))
            container.mux(stream.encode(None))

    return make


def recording(path, begins=0.0, length=0.8, size=64, mute=False):
    """MPEG-TS with a sound, whose clock begins at any second."""
    with av.open(str(path), "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        sound = None if mute else container.add_stream("mp2", rate=32000, layout="mono")
        for number, frame in enumerate(moving(round(25 * length))):
            picture = av.VideoFrame.from_ndarray(cv2.resize(frame, (size, size)), format="bgr24")
            picture.pts, picture.time_base = number + round(25 * begins), Fraction(1, 25)
            container.mux(stream.encode(picture))
        if sound:
            wave = 0.3 * np.sin(np.arange(round(32000 * length)) / 10)[None].astype(np.float32)
            frame = av.AudioFrame.from_ndarray(
                (wave * 32767).astype(np.int16), format="s16", layout="mono"
            )
            frame.sample_rate, frame.time_base = 32000, Fraction(1, 32000)
            frame.pts = round(32000 * begins)
            container.mux(sound.encode(frame))
            container.mux(sound.encode(None))
        container.mux(stream.encode(None))
    return path


def joined(*makers):
    """The bytes of several files, one after the other."""

    def make(path):
        data = b""
        for maker in makers:
            maker(path)
            data += path.read_bytes()
        path.write_bytes(data)

    return make


def gapped(path):
    """Matroska whose sound pauses for six seconds: its clock is believed."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        for begins in (0, 6.5):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 8000), np.int16), "s16", "mono")
            frame.sample_rate, frame.time_base = 16000, Fraction(1, 16000)
            frame.pts = round(16000 * begins)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def tracks(default, kind="audio"):
    """Several tracks, the one number `default` marked; the second alone holds anything."""

    def make(path):
        with av.open(str(path), "w") as container:
            if kind == "audio":
                streams = [container.add_stream("pcm_s16le", rate=16000) for _ in range(2)]
            else:
                streams = [container.add_stream("ffv1", rate=25) for _ in range(2)]
            for number, stream in enumerate(streams):
                stream.disposition = av.stream.Disposition(number == default)
                if kind == "audio":
                    stream.layout = "mono"
                else:
                    stream.width, stream.height, stream.pix_fmt = 32 + 16 * number, 32, "bgr0"
            for number, stream in enumerate(streams):
                if kind == "audio":
                    wave = np.full((1, 8000), 9830 * number, np.int16)
                    frame = av.AudioFrame.from_ndarray(wave, "s16", "mono")
                    frame.sample_rate = 16000
                else:
                    picture = np.zeros((32, 32 + 16 * number, 3), np.uint8)
                    frame = av.VideoFrame.from_ndarray(picture, "bgr24").reformat(format="bgr0")
                frame.pts = 0
                container.mux(stream.encode(frame))
            for stream in streams:
                container.mux(stream.encode(None))

    return make


def moved(**options):
    """Five pictures that move, as Pillow writes them; the ending does not matter."""

    def make(path):
        pictures = [Image.fromarray(f[..., ::-1]) for f in moving(5, SMALL)]
        pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=100, **options)

    return make


def pillow(array, mode=None, **options):
    def make(path):
        picture = Image.fromarray(array)
        picture = picture.convert(mode) if mode else picture
        picture.save(path, **options)

    return make


def turned_by_tag(number, kind):
    """QUARTERS stored as an EXIF orientation of this number says."""
    turned = QUARTERS.swapaxes(0, 1)
    stored = {
        1: QUARTERS, 2: QUARTERS[:, ::-1], 3: QUARTERS[::-1, ::-1], 4: QUARTERS[::-1],
        5: turned, 6: np.rot90(QUARTERS, 1), 7: np.rot90(turned, 2), 8: np.rot90(QUARTERS, -1),
    }[number]  # fmt: skip

    def make(path):
        exif = Image.Exif()
        exif[0x0112] = number
        Image.fromarray(np.ascontiguousarray(stored)).save(path, format=kind, exif=exif)

    return make


def swapped_profile():
    """sRGB whose red is blue and whose blue is red."""
    data = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return data.replace(b"rXYZ", b"?").replace(b"bXYZ", b"rXYZ").replace(b"?", b"bXYZ")


def two_channels(right, codec="pcm_s16le"):
    """Left a tone, right the tone times `right`."""

    def make(path):
        tone = 0.3 * np.sin(np.arange(8000) / 8).astype(np.float32)
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=16000, layout="stereo")
            frame = av.AudioFrame.from_ndarray(np.stack((tone, right * tone)), "fltp", "stereo")
            frame.sample_rate, frame.pts = 16000, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

    return make


def wav(tag=1, bits=16, rate=48000, channels=2, size=None, extensible=False, tail=b"", rf64=False):
    """100 samples of half the full scale with any header."""
    value = {1: round(2.0 ** (bits - 2)), 3: 0.5}.get(tag, 0) + (128 if bits == 8 else 0)
    kinds = {(1, 8): "B", (1, 16): "h", (1, 32): "i", (3, 32): "f", (3, 64): "d"}
    if (tag, bits) in kinds:
        samples = struct.pack(f"<{100 * channels}{kinds[tag, bits]}", *[value] * 100 * channels)
    else:
        samples = bytes(100 * channels * bits // 8)
    form = struct.pack("<HHIIHH", 0xFFFE if extensible else tag, channels, rate,
                       rate * channels * bits // 8, channels * bits // 8, bits)  # fmt: skip
    if extensible:
        form += struct.pack("<HHI", 22, bits, 3) + struct.pack("<H", tag) + bytes(14)
    body = b"fmt " + struct.pack("<I", len(form)) + form
    if rf64:
        body = b"ds64" + struct.pack("<IQQQI", 28, 0, len(samples), 100, 0) + body
    length = len(samples) if size is None else size
    body += b"data" + struct.pack("<I", length) + samples + tail
    begins = b"RF64" if rf64 else b"RIFF"
    return raw(begins + struct.pack("<I", 2**32 - 1) + b"WAVE" + body)


def early_sound(path):
    """Sound from second 0, its picture from 0.4 on."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 16, 16, "bgr0"
        sound = container.add_stream("pcm_s16le", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.full((1, 16000), 3000, np.int16), "s16", "mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(sound.encode(frame))
        for number in range(10, 25):
            picture = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), "bgr24")
            picture = picture.reformat(format="bgr0")
            picture.pts, picture.time_base = number, Fraction(1, 25)
            container.mux(stream.encode(picture))
        for track in (sound, stream):
            container.mux(track.encode(None))


def weights(value, name="face_encoder_blocks.0.0.conv_block.0.weight"):
    def make(path):
        import torch

        checkpoint = read_checkpoint(REPOSITORY / "checkpoints" / "open.pth")
        key = name if name in checkpoint["state_dict"] else next(iter(checkpoint["state_dict"]))
        checkpoint["state_dict"][key][(0,) * checkpoint["state_dict"][key].ndim] = value
        if checkpoint.get("ema"):
            checkpoint["ema"][key][(0,) * checkpoint["ema"][key].ndim] = value
        torch.save(checkpoint, path)

    return make


def generator(path):
    return type(load_generator(path)).__name__


def of_equal_length(path):
    """Frames of a video, and of the speech that lasts as long."""
    count = count_frames(path, probe(path).fps)
    speech = np.zeros(round(16000 * count / probe(path).fps), np.float32)
    return count, len(speech_chunks(speech, probe(path).fps, False))


ROUND = [60, 140, 220, 0]
MIRROR, FLIP = QUARTERS[:, ::-1], QUARTERS[::-1]
LAY, LAID = np.rot90(QUARTERS), np.rot90(QUARTERS, -1)
TURNED = QUARTERS.swapaxes(0, 1)
SEE_THROUGH = np.dstack((np.full((16, 16, 3), 90, np.uint8), np.zeros((16, 16), np.uint8)))
HALF_THROUGH = np.dstack((np.zeros((16, 16, 3), np.uint8), np.full((16, 16), 128, np.uint8)))
GREY16 = np.full((16, 16), 128 * 257, np.uint16)
RED = np.zeros((16, 16, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
VARIES = [0, 40, 80, 500, 540, 580, 1200, 1240, 1280, 1900, 1940, 1980]
DROPPED = [40 * n for n in range(30) if n != 12]
SLOW = [0, 100, 200, 300, 1500, 1600, 1700, 3000, 3100, 3200]
MP3 = {"codec": "libmp3lame"}
HEIC = struct.pack(">I", 24) + b"ftypheic" + bytes(4) + b"mif1heic" + bytes(400)

READS = {
    # as displayed
    "stored upright.mp4": (shown_by((1, 0, 0, 1), QUARTERS), quarters, ROUND),
    "mirrored by its matrix.mp4": (shown_by((-1, 0, 0, 1), MIRROR), quarters, ROUND),
    "upside down by its matrix.mp4": (shown_by((1, 0, 0, -1), FLIP), quarters, ROUND),
    "turned by 180.mp4": (shown_by((-1, 0, 0, -1), QUARTERS[::-1, ::-1]), quarters, ROUND),
    "turned by 90.mp4": (shown_by((0, 1, -1, 0), LAY), quarters, ROUND),
    "turned by 270.mp4": (shown_by((0, -1, 1, 0), LAID), quarters, ROUND),
    "transposed by its matrix.mp4": (shown_by((0, 1, 1, 0), TURNED), quarters, ROUND),
    "transposed the other way.mp4": (
        shown_by((0, -1, -1, 0), np.rot90(TURNED, 2)), quarters, ROUND),
    "turned, its size.mp4": (shown_by((0, 1, -1, 0), LAY), shape, (32, 48)),
    "pixels 64 to 45.mp4": (anamorphic((64, 45)), shape, (91, 48)),
    "pixels 8 to 9.mp4": (anamorphic((8, 9)), shape, (64, 54)),
    "pixels 2 to 1, turned.mp4": (anamorphic((2, 1), matrix=(0, 1, -1, 0)), shape, (48, 128)),
    "pixels 64 to 45.mkv": (anamorphic((64, 45)), shape, (91, 48)),
    "pixels that are absurd.mp4": (anamorphic((99, 1)), shape, (64, 48)),
    "hdr, PQ.mkv": (hdr(16), off_by(SMALL), True),
    "hdr, HLG.mkv": (hdr(18), off_by(SMALL), True),
    "sdr, 10 bit.mkv": (hdr(1), off_by(SMALL), True),
    # what changes on the way
    "its size changes.ts": (joined(recording, lambda p: recording(p, 0.8, size=96)), shapes,
                            [(64, 64)]),
    "its size shrinks.ts": (joined(lambda p: recording(p, size=96),
                                   lambda p: recording(p, 0.8, size=48)), shapes, [(96, 96)]),
    "rate changes.mp3": (joined(lambda p: tones(p, 44100, 2, **MP3),
                                lambda p: tones(p, 24000, 1, **MP3)), heard, 1.2),
    "channels change.mp3": (joined(lambda p: tones(p, 32000, 1, **MP3),
                                   lambda p: tones(p, 32000, 2, **MP3)), heard, 1.3),
    "channels change.aac": (joined(lambda p: tones(p, 32000, 2, codec="aac"),
                                   lambda p: tones(p, 32000, 1, codec="aac")), heard, 1.3),
    "its first format holds.mp3": (joined(lambda p: tones(p, 44100, 2, **MP3),
                                          lambda p: tones(p, 24000, 1, **MP3)), audio_format,
                                   (44100, 2)),
    # clocks
    "joined, a minute apart.ts": (joined(recording, lambda p: recording(p, 60)), seconds, 1.6),
    "joined, a minute apart, heard.ts": (joined(recording, lambda p: recording(p, 60)), heard, 1.6),
    "joined, a day apart, heard.ts": (joined(recording, lambda p: recording(p, 80000)), heard, 1.6),
    "joined, back in time.ts": (joined(lambda p: recording(p, 60), recording), seconds, 1.6),
    "joined, back in time, heard.ts": (joined(lambda p: recording(p, 60), recording), heard, 1.6),
    "a pause of 2 s.ts": (joined(recording, lambda p: recording(p, 2.8)), heard, 3.6),
    "a pause of 6 s that is meant.mkv": (gapped, heard, 7.0),
    # tracks
    "two sounds, the second the default.mkv": (tracks(1), level, 0.3),
    "two sounds, the first the default.mkv": (tracks(0), level, 0.0),
    "two pictures, the second the default.mkv": (tracks(1, "video"), shape, (48, 32)),
    "two pictures, the first the default.mkv": (tracks(0, "video"), shape, (32, 32)),
    # pictures and what moves
    "moving.webp": (moved(), distinct, 5),
    "moving, lossless.webp": (moved(lossless=True), distinct, 5),
    "moving.png": (moved(), distinct, 5),
    "moving.gif": (moved(), distinct, 5),
    "moving.avif": (moved(), distinct, 5),
    "a moving gif named.png": (moved(format="GIF"), distinct, 5),
    "a moving webp named.mp4": (moved(format="WEBP"), distinct, 5),
    "a moving png named.jpg": (moved(format="PNG"), distinct, 5),
    "moving, its rate.webp": (moved(), fps, 10.0),
    "moving, its rate.gif": (moved(), fps, 10.0),
    "moving, its length.png": (moved(), seconds, 0.5),
    "moving and cut.gif": (start_of(moved(), 0.6), lambda path: distinct(path) >= 2, True),
    "still.gif": (pillow(SMALL), distinct, "picture"),
    "still.webp": (pillow(SMALL), distinct, "picture"),
    "still.avif": (pillow(SMALL), distinct, "picture"),
    "still.jp2": (pillow(SMALL), distinct, "picture"),
    "still.ppm": (pillow(SMALL), distinct, "picture"),
    "two pages.tiff": (pillow(SMALL, save_all=True, append_images=[Image.fromarray(RED)]),
                       distinct, "picture"),
    "a phone's two pictures.jpg": (
        pillow(SMALL, format="MPO", save_all=True, append_images=[Image.fromarray(RED)]),
        distinct, "picture"),
    "photo.heic": (raw(HEIC), fps, "refused: convert it to JPEG"),
    "a heic photo named.jpg": (raw(HEIC), fps, "refused: convert it to JPEG"),
    "transparent.png": (pillow(SEE_THROUGH), colour, [255] * 3),
    "half transparent.png": (pillow(HALF_THROUGH), colour, [127] * 3),
    "transparent.webp": (pillow(SEE_THROUGH, lossless=True), colour, [255] * 3),
    "transparent, grey.png": (pillow(SEE_THROUGH, "LA"), colour, [255] * 3),
    "a transparent colour.gif": (pillow(SEE_THROUGH), colour, [255] * 3),
    "16 bit grey.png": (pillow(GREY16), colour, [128] * 3),
    "16 bit grey.tiff": (pillow(GREY16), colour, [128] * 3),
    "floats.tiff": (pillow(np.full((16, 16), 0.5, np.float32)), colour, [127] * 3),
    "palette.png": (pillow(RED, "P"), colour, [0, 0, 255]),
    "one bit.png": (pillow(np.full((16, 16), 255, np.uint8), "1"), colour, [255] * 3),
    "cmyk.jpg": (pillow(RED, "CMYK", quality=100), lambda p: colour(p)[2] > 250, True),
    "cmyk.tiff": (pillow(RED, "CMYK"), colour, [0, 0, 255]),
    "a profile that swaps red and blue.png": (
        pillow(RED, icc_profile=swapped_profile()), lambda p: colour(p)[0] > 250, True),
    "a damaged profile.png": (pillow(RED, icc_profile=b"none" * 40), colour, [0, 0, 255]),
    **{f"exif {n}.jpg": (turned_by_tag(n, "JPEG"), corners, ROUND) for n in range(1, 9)},
    "exif 6.png": (turned_by_tag(6, "PNG"), corners, ROUND),
    "exif 6.tiff": (turned_by_tag(6, "TIFF"), corners, ROUND),
    "exif 8.webp": (turned_by_tag(8, "WEBP"), corners, ROUND),
    "half.jpg": (start_of(pillow(FACE), 0.5), colour, "refused: cannot be decoded"),
    "half.webp": (start_of(pillow(FACE), 0.5), colour, "refused: cannot be decoded"),
    # rates
    **{f"{rate} frames a second.mp4": (
        lambda p, rate=rate: video(p, moving(8, SMALL), rate), fps, float(rate))
       for rate in (1, 12, 50, 60, 120, 240)},
    "a rate that varies.mkv": (
        lambda p: video(p, moving(12, SMALL), times=VARIES, **PLAIN), fps, 25.0),
    "a rate that varies, slow.mkv": (
        lambda p: video(p, moving(10, SMALL), times=SLOW, **PLAIN), fps, 20.0),
    "one frame dropped.mkv": (
        lambda p: video(p, moving(29, SMALL), times=DROPPED, **PLAIN),
        lambda p: abs(fps(p) - 25) < 1, True),
    "23.976 fps and speech as long.mkv": (
        lambda p: video(p, [SMALL] * 115, 24000 / 1001, **PLAIN), of_equal_length, (115, 115)),
    # sound
    "sound before its picture.mkv": (early_sound, heard, 0.6),
    "sound before another's picture.mkv": (
        early_sound, lambda p: round(len(load_audio(p, picture=False)) / 16000, 1), 1.0),
    "channels that cancel.wav": (two_channels(-1), level, 0.3),
    "channels that nearly cancel.wav": (two_channels(-0.95), level, 0.3),
    "channels that cancel, stereo.wav": (
        two_channels(-1), lambda p: sum(c.shape[1] for c in iter_audio(p, 16000, 2)), 8000),
    "one channel silent.wav": (two_channels(0), level, 0.1),
    "8 bit.wav": (lambda p: tones(p, codec="pcm_u8"), level, 0.3),
    "24 bit.wav": (lambda p: tones(p, codec="pcm_s24le"), level, 0.3),
    "doubles.wav": (lambda p: tones(p, codec="pcm_f64le"), level, 0.3),
    "adpcm.wav": (lambda p: tones(p, codec="adpcm_ima_wav"), level, 0.3),
    "10 ms.wav": (lambda p: tones(p, seconds=0.01), lambda p: len(load_audio(p)), 160),
    "rf64.wav": (wav(rf64=True, size=2**32 - 1), lambda p: level(p), 0.5),
    "streamed.wav": (wav(size=2**32 - 1), level, 0.5),
    # standard input
    "piped, plain.raw": (raw(struct.pack("<h", 8192) * 200), piped, (16000, 1, 200, 0.2)),
    "piped, 16 bit.wav": (wav(), piped, (48000, 2, 100, 0.5)),
    "piped, 8 bit.wav": (wav(bits=8, channels=1), piped, (48000, 1, 100, 0.5)),
    "piped, 32 bit.wav": (wav(bits=32), piped, (48000, 2, 100, 0.5)),
    "piped, floats.wav": (wav(3, 32), piped, (48000, 2, 100, 0.5)),
    "piped, doubles.wav": (wav(3, 64), piped, (48000, 2, 100, 0.5)),
    "piped, extensible.wav": (wav(extensible=True), piped, (48000, 2, 100, 0.5)),
    "piped, 5.1.wav": (wav(channels=6), piped, (48000, 2, 100, 0.5)),
    "piped, without a length.wav": (wav(size=2**32 - 1), piped, (48000, 2, 100, 0.5)),
    "piped, with words behind.wav": (
        wav(tail=b"LIST" + struct.pack("<I", 80) + b"\x7f" * 80), piped, (48000, 2, 100, 0.5)),
    "piped, 24 bit.wav": (wav(bits=24), piped, "refused: ffmpeg -i"),
    "piped, compressed.wav": (wav(tag=0x55), piped, "refused: ffmpeg -i"),
    "piped.mp3": (lambda p: tones(p, 44100, **MP3), piped, "refused: ffmpeg -i"),
    "piped.aac": (lambda p: tones(p, 44100, codec="aac"), piped, "refused: ffmpeg -i"),
    "piped.flac": (lambda p: tones(p, codec="flac"), piped, "refused: ffmpeg -i"),
    "piped.ogg": (lambda p: tones(p, 48000, codec="libopus"), piped, "refused: ffmpeg -i"),
    "piped.mp4": (lambda p: video(p, moving(2)), piped, "refused: ffmpeg -i"),
    "piped.mkv": (lambda p: video(p, moving(2, SMALL), **PLAIN), piped, "refused: ffmpeg -i"),
    # weights
    "a weight that is no number.pth": (weights(float("nan")), generator, "refused: not finite"),
    "a weight without end.pth": (weights(float("inf")), generator, "refused: not finite"),
    "an expert as the generator.pth": (
        lambda p: shutil.copy(REPOSITORY / "checkpoints" / "open_expert.pth", p), generator,
        "refused: expert"),
}  # fmt: skip
