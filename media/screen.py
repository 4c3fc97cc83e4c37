"""Decoded frames as a player shows them: square pixels, upright, HDR in SDR's range and colours."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import av
    from PIL import ImageFilter

# swscale: bilinear | full chroma | accurate rounding. Its default rounds down and darkens each pass
# by 2 grey levels.
SCALE_FLAGS = 0x2 | 0x2000 | 0x40000
MAX_STRETCH = 5  # a header whose pixels are longer than this is not believed
PQ, HLG, BT2020 = 16, 18, 9  # ITU-T H.273's numbers of two transfers and of a set of primaries
SDR_WHITE, HLG_PEAK = 203.0, 1000.0  # cd/m2, ITU-R BT.2408
LUT_SIZE = 65
TO_BT709 = np.array(  # linear RGB, ITU-R BT.2087
    [[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]]
)


class Screen:
    """Frames of one track as uint8 BGR (H, W, 3), all of the size that the first has."""

    def __init__(self, stream: av.VideoStream | None = None) -> None:
        """stream: None for frames that are as they are to be shown."""
        self.stream = stream
        self._size: tuple[int, int] | None = None  # before it is turned upright

    def fit(self, frame: av.VideoFrame) -> None:
        """The size of the first frame holds for all."""
        if self._size is None:
            ratio = float((self.stream and self.stream.sample_aspect_ratio) or 1)
            ratio = ratio if 1 / MAX_STRETCH <= ratio <= MAX_STRETCH else 1
            self._size = (round(frame.width * max(1, ratio)), round(frame.height / min(1, ratio)))

    def show(self, frame: av.VideoFrame) -> np.ndarray:
        """Untagged HD is taken for BT.709, smaller for BT.601, as players do."""
        self.fit(frame)
        if self.stream is None and (frame.width, frame.height) == self._size:
            return frame.to_ndarray(format="bgr24")
        colours = "ITU709" if int(frame.colorspace) == 2 and frame.height >= 720 else None
        image = frame.reformat(
            *self._size, format="bgr24", src_colorspace=colours, interpolation=SCALE_FLAGS
        ).to_ndarray()
        context = self.stream and self.stream.codec_context
        if context and (context.color_trc in (PQ, HLG) or context.color_primaries == BT2020):
            from PIL import Image

            table = _to_sdr(context.color_trc, context.color_primaries == BT2020)
            image = np.asarray(Image.fromarray(image).filter(table))
        return _upright(image, frame)


def _upright(image: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Turned and mirrored as the display matrix says, to the nearest right angle."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return image
    # x' = ax + cy, y' = bx + dy
    a, b, _, c, d, *_ = np.frombuffer(bytes(matrix), np.int32).tolist()
    across, down = a, d
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, across, down = image.swapaxes(0, 1), c, b
    return np.ascontiguousarray(image[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


@functools.lru_cache(maxsize=4)
def _to_sdr(transfer: int, wide: bool) -> ImageFilter.Color3DLUT:
    """BGR of PQ (SMPTE ST 2084), HLG (ITU-R BT.2100, on a screen of HLG_PEAK) or SDR -> of BT.709
    on a BT.1886 screen. SDR_WHITE becomes white, and so does all that is brighter; what is darker
    keeps its luminance. wide: the colours are BT.2020's.
    """
    from PIL import ImageFilter

    levels = np.linspace(0, 1, LUT_SIZE)
    rgb = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), -1)  # [r, g, b]
    if transfer == PQ:
        root = rgb ** (1 / 78.84375)
        light = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        light = light ** (1 / 0.1593017578125) * (10000 / SDR_WHITE)
    elif transfer == HLG:
        scene = np.where(
            rgb <= 0.5, rgb**2 / 3, (np.exp((rgb - 0.55991073) / 0.17883277) + 0.28466892) / 12
        )
        luminance = scene @ (0.2627, 0.6780, 0.0593)
        light = scene * luminance[..., None] ** 0.2 * HLG_PEAK / SDR_WHITE
    else:
        light = rgb**2.4
    if wide:
        light = light @ TO_BT709.T
    bgr = np.clip(light, 0, 1)[..., ::-1] ** (1 / 2.4)
    return ImageFilter.Color3DLUT(LUT_SIZE, bgr.reshape(-1).tolist())
