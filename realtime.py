"""Live lips: speech in, frames out a fifth of a second later.

    python realtime.py --face me.jpg
    python realtime.py --checkpoint_path checkpoints/wav2lip.pth --face me.jpg --audio speech.wav \
        --outfile - | ffplay -fflags nobuffer -
    arecord -f S16_LE -r 16000 -t raw | python realtime.py --checkpoint_path \
        checkpoints/wav2lip.pth --face me.mp4 --audio - --outfile live.mp4

As a library: `LipSyncStream(lipsync, "me.jpg")`, then `feed(pcm)` and `flush()` give frames.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
from collections.abc import Iterator

from errors import InputError, require_file, run_cli
from face_detection.arguments import weights_files
from lipsync.engine import add_model_arguments, create_lipsync
from lipsync.options import add_arguments, options_from, positive, seconds
from live.loop import MAX_LAG, run_live
from live.output import FORMATS, create_sink
from live.sound import Inbox, open_sound
from live.speech import SAMPLE_RATE
from live.stream import MIN_FPS, LipSyncStream, live_options
from media.files import keep_inputs, write_json

__all__ = ["LipSyncStream"]


@contextlib.contextmanager
def ended_by_signals(stop) -> Iterator[None]:
    """Ctrl-C and kill end the sound: what came is finished. A second one stops at once."""
    before = {}

    def handle(*_: object) -> None:
        stop()
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    for number in (signal.SIGINT, signal.SIGTERM):
        before[number] = signal.signal(number, handle)
    try:
        yield
    finally:
        restore()


def get_args_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Live lips: speech in, frames out a fifth of a second later."
    )
    # fmt: off
    add_model_arguments(parser)
    add = parser.add_argument
    add("--face", required=True, help="picture or video with a face")
    add("--audio", default="mic",
        help="mic; - : 16-bit little-endian mono PCM on standard input, where pauses are silence "
        "that is sent, too; or a file, heard in real time; default %(default)s")
    add("--sample_rate", type=positive, default=SAMPLE_RATE,
        help="of mic and -; default %(default)s")
    add("--outfile", default="window",
        help="window; - : standard output; or a file, .mp4, .mov or .mkv; default %(default)s")
    add("--format", choices=FORMATS, default="mpegts",
        help="of standard output: H.264 and AAC, or raw BGR24 pixels; default %(default)s")
    add("--seconds", type=seconds, help="end after so much sound")
    add("--max_lag", type=seconds, default=MAX_LAG,
        help="drop frames that are later than this, in seconds; default %(default)s")
    add("--int8_speech", metavar="FILE",
        help="speech to check 8 bits on; default: the file given as --audio, or a sample")
    add("--report", metavar="FILE.json", help="write what was measured: latency, drops, drift")
    # fmt: on
    add_arguments(parser)
    return parser


def main(args: argparse.Namespace) -> None:
    from lipsync.source import source_fps
    from models.shipped import generator_path

    options = options_from(args)
    args.checkpoint_path = generator_path(args.checkpoint_path)
    # before torch and the weights take their time
    inputs = [args.face, args.audio, args.checkpoint_path, args.reference, args.int8_speech]
    inputs += [args.boxes, *weights_files(args).values()]
    for outfile in filter(None, (args.outfile, args.report)):
        keep_inputs(outfile, *inputs)
    fps = source_fps(require_file(args.face, "face"), live_options(options))
    if fps < MIN_FPS:
        raise InputError(f"{fps:g} frames a second: live mode needs at least {MIN_FPS}")
    from_file = args.audio not in ("mic", "-")
    if from_file:
        require_file(args.audio, "audio")
    if args.report and not os.path.isdir(os.path.dirname(args.report) or "."):
        raise InputError(f"--report {args.report}: there is no such folder")
    sound = open_sound(args.audio, args.sample_rate)
    int8_speech = args.int8_speech or (args.audio if from_file else None)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        sink = enter(create_sink(args.outfile, args.format, fps, sound.rate, sound.channels))
        lipsync = create_lipsync(args)
        stream = enter(LipSyncStream(lipsync, args.face, sound.rate, int8_speech, **options))
        inbox = enter(Inbox(sound, args.seconds))
        enter(ended_by_signals(inbox.stop))
        print(f"ready\nnetwork: {stream.describe()}", file=sys.stderr)
        report = run_live(stream, inbox, sink, sound.rate, args.max_lag)
    print(report, file=sys.stderr)
    if args.report:
        write_json(args.report, report.to_dict(), indent=1)


if __name__ == "__main__":
    run_cli(main, get_args_parser())
