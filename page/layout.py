"""The web page of app.py, in gradio: its fields, and what its buttons do."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator

import gradio as gr

from errors import InputError
from page.jobs import Jobs, Stopped, parse_options, shown_flags
from page.serve import QUICK, refusal

FAULT = "Something went wrong here. It has been logged; please tell who runs this page."
INTRO = """# Wav2Lip
Give a face, in a video or a photo, and any speech: the lips are redrawn to match it."""
NOTES = """**Only with consent.** Use faces and voices of people who have agreed, and say that the
video is synthetic wherever you show it; its metadata says so too.

**Your files.** Uploads are deleted when their job ends; the result when your next job begins, when
you close this page, or after an hour."""
STAGES = {"faces": "Searching faces", "lips": "Redrawing", "original": "Copying the original"}
CSS = """
#options .form { background: none; display: grid;
  grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
#speech { min-height: 300px; }
"""


def build_page(jobs: Jobs, examples: dict[str, str], max_mb: int) -> gr.Blocks:
    """The page. examples: paths of "face", "photo" and "voice"."""
    gr.set_static_paths([os.path.dirname(path) for path in examples.values()])
    with gr.Blocks(title="Wav2Lip", analytics_enabled=False) as page:
        gr.Markdown(INTRO)
        inputs = _inputs(examples, jobs.max_seconds, max_mb)
        with gr.Accordion("Options", open=False):
            fields = _option_fields()
        with gr.Row():
            go = gr.Button("Redraw the lips", variant="primary", elem_id="go", scale=3)
            stop = gr.Button("Stop", elem_id="stop", scale=1)
        said = gr.Markdown(elem_id="said")
        with gr.Row():
            about = {"interactive": False, "height": 360, "buttons": []}
            original = gr.Video(label="Original", elem_id="original", **about)
            result = gr.Video(label="Result", elem_id="result", **about)
        download = gr.DownloadButton("Download the result", interactive=False, elem_id="download")
        gr.Markdown(NOTES)
        shown = [result, original, download, said]
        claim, work, halt, leave = _handlers(jobs, list(fields))
        looks = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        claiming = go.click(claim, [*inputs, *fields.values()], shown, **looks)
        # only what was not refused waits its turn
        working = claiming.success(
            work, None, shown, concurrency_limit=1, show_progress_on=[result],
            api_visibility="private",
        )  # fmt: skip
        for ended in (claiming.failure, working.success, working.failure):
            ended(_still_there, inputs, inputs, **QUICK)
        stop.click(halt, inputs, [said, *inputs], cancels=[working], **QUICK)
        page.unload(leave)
    return page


def _inputs(examples: dict[str, str], max_seconds: float, max_mb: int) -> list:
    """The four ways in: face video, photo, sound, video with sound. One of each pair is filled."""
    limits = f"at most {max_seconds:g} seconds and {max_mb} MB"
    about = {"sources": ["upload"], "height": 300, "buttons": []}
    with gr.Row():
        with gr.Column():
            gr.Markdown(f"### Face\nA video or a photo of one person, {limits}.")
            with gr.Tabs() as faces:
                with gr.Tab("Video", id="video"):
                    video = gr.Video(label="Face video", elem_id="face_video", **about)
                with gr.Tab("Photo or camera", id="photo"):
                    taken = about | {"sources": ["upload", "webcam"], "image_mode": None}
                    photo = gr.Image(label="Photo", type="filepath", elem_id="face_photo", **taken)
                    # the file as it is: what cannot be read is refused in our words
                    photo.preprocess = lambda upload: upload and upload.path
            with gr.Row():
                face_example = gr.Button("Example video", size="sm", elem_id="example_video")
                photo_example = gr.Button("Example photo", size="sm", elem_id="example_photo")
        with gr.Column():
            gr.Markdown(f"### Speech\nThe result will be as long as the speech, {limits}.")
            with gr.Tabs() as speeches:
                with gr.Tab("Sound or microphone", id="sound"):
                    heard = {"sources": ["upload", "microphone"], "buttons": []}
                    sound = gr.Audio(label="Speech", type="filepath", elem_id="speech", **heard)
                with gr.Tab("Sound of a video", id="clip"):
                    clip = gr.Video(label="Video with speech", elem_id="speech_video", **about)
            voice_example = gr.Button("Example voice", size="sm", elem_id="example_voice")
    for one, other in ((video, photo), (photo, video), (sound, clip), (clip, sound)):
        one.input(None, None, other, js="() => null", api_visibility="private")
    for button, path, one, other, tabs, tab in (
        (face_example, "face", video, photo, faces, "video"),
        (photo_example, "photo", photo, video, faces, "photo"),
        (voice_example, "voice", sound, clip, speeches, "sound"),
    ):
        button.click(_give(examples[path], tab), None, [one, other, tabs], **QUICK)
    return [video, photo, sound, clip]


def _give(path: str, tab: str) -> Callable:
    return lambda: (path, None, gr.Tabs(selected=tab))


def _option_fields() -> dict[str, gr.components.Component]:
    """A field for every shown flag, with the flag's own help."""
    fields = {}
    with gr.Row(elem_id="options"):
        for name, flag in shown_flags().items():
            unit = flag.metavar if isinstance(flag.metavar, str) else " ".join(flag.metavar or ())
            about = {"label": f"{name}: {unit.lower()}" if unit else name}
            about |= {"info": flag.help % vars(flag), "elem_id": f"option_{name}"}
            if flag.choices:
                fields[name] = gr.Dropdown(list(flag.choices), value=flag.default, **about)
            elif flag.nargs == 0:
                fields[name] = gr.Checkbox(flag.default, **about)
            else:
                default = "" if flag.default is None else flag.default
                text = " ".join(map(str, default)) if isinstance(default, list) else str(default)
                fields[name] = gr.Textbox(text, **about)
    return fields


def _handlers(jobs: Jobs, names: list[str]) -> tuple[Callable, ...]:
    """What the buttons do. The first two give result, original, download and a line about them."""

    def claim(request: gr.Request, video, photo, sound, clip, *values):
        with _told():
            options = parse_options(dict(zip(names, values, strict=True)))
            jobs.claim(request.session_hash, video or photo, sound or clip, options)
        return None, None, gr.DownloadButton(value=None, interactive=False), ""

    def work(request: gr.Request, progress=gr.Progress()):  # noqa: B008  (gradio's way)
        def tell(stage: str, done: int, total: int) -> None:
            progress(done / total, desc=f"{STAGES[stage]}: {done} of {total} frames")

        progress(0, desc="Beginning")
        with _told():
            result, original, note = jobs.run(request.session_hash, tell)
        return result, original, gr.DownloadButton(value=result, interactive=True), note

    def halt(request: gr.Request, *paths: str | None) -> list:
        if not jobs.stop(request.session_hash):
            return [gr.skip()] * (1 + len(paths))
        kept = [gr.skip() if path and jobs.is_example(path) else None for path in paths]
        return ["Stopped.", *kept]

    def leave(request: gr.Request) -> None:
        jobs.leave(request.session_hash)

    return claim, work, halt, leave


def _still_there(*paths: str | None) -> list:
    """Empty the fields whose upload has been deleted."""
    return [gr.skip() if path and os.path.exists(path) else None for path in paths]


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """A fault ends in one line for its user, and no other's job; what is ours is logged too."""
    try:
        yield
    except (Stopped, InputError) as error:
        raise refusal(str(error) or "Stopped.") from error
    except Exception as error:
        logging.getLogger("app").error("a job failed", exc_info=error)
        raise refusal(FAULT) from error
