"""The web page of app.py, in gradio: its fields, what its buttons do, and how it is served."""

from __future__ import annotations

import html
import logging
import os
import uuid
from abc import ABCMeta
from collections.abc import Callable

import gradio as gr

from errors import InputError
from page.jobs import Jobs, Stopped, parse_options, shown_flags

FAULT = "Something went wrong here. It has been logged; please tell who runs this page."
INTRO = """# Wav2Lip
Give a face, in a video or a photo, and any speech: the lips are redrawn to match it."""
NOTES = """**Only with consent.** Use faces and voices of people who have agreed, and say that the
video is synthetic wherever you show it; its metadata says so too.

**Your files.** Uploads are deleted when their job ends; the result when your next job begins, when
you close this page, or after an hour."""
STAGES = {"faces": "Searching faces", "lips": "Redrawing", "original": "Copying the original"}
FONTS = ["system-ui", "sans-serif"]  # gradio's own would be fetched
# Nothing comes from elsewhere: gradio's trimming of videos would fetch a program and is hidden
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
HEAD = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
CSS = """
[aria-label="Trim video to selection"] { display: none !important; }
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
#options .form { background: none; display: grid;
  grid-template-columns: repeat(auto-fill, minmax(300px, 1fr)); }
#speech { min-height: 300px; }
.said { padding: 8px 12px; border-radius: 6px; border-left: 4px solid; }
.said.good { border-color: #2f855a; background: #2f855a1a; }
.said.bad { border-color: #c53030; background: #c530301a; }
"""


# An Image that hands over the uploaded file as it is: what cannot be read is refused in our
# words, not in gradio's. Made past gradio's metaclass, which writes a .pyi beside every subclass.
Photo = ABCMeta.__new__(
    type(gr.Image), "Photo", (gr.Image,),
    {"is_template": True, "preprocess": lambda self, upload: upload and upload.path},
)  # fmt: skip


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
        said = gr.HTML(elem_id="said")
        with gr.Row():
            about = {"interactive": False, "height": 360, "buttons": []}
            original = gr.Video(label="Original", elem_id="original", **about)
            result = gr.Video(label="Result", elem_id="result", **about)
        download = gr.DownloadButton("Download the result", interactive=False, elem_id="download")
        gr.Markdown(NOTES)
        claimed = gr.State()
        quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        shown = [result, original, download, said]
        claim, work, halt, leave = _handlers(jobs, list(fields))
        claiming = go.click(
            claim, [*inputs, *fields.values()], [claimed, *shown],
            **quick | {"queue": True, "concurrency_limit": None},
        )  # fmt: skip
        claiming.then(_still_there, inputs, inputs, **quick)
        # only a claim changes the state (of an event with queue): a refusal waits for nobody
        working = claimed.change(
            work, None, shown, concurrency_limit=1, show_progress_on=[result],
            api_visibility="private",
        )  # fmt: skip
        working.then(_still_there, inputs, inputs, **quick)
        stop.click(halt, inputs, [said, *inputs], cancels=[working], **quick)
        page.unload(leave)
    return page.queue(default_concurrency_limit=1)


def launch(page: gr.Blocks, host: str, port: int, max_mb: int) -> str:
    """Serve the page in threads of its own; its address. InputError where that cannot be had."""
    theme = gr.themes.Default(font=FONTS, font_mono=["monospace"])
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True,
            max_file_size=max_mb * 2**20, ssr_mode=False, footer_links=[], theme=theme, css=CSS,
            head=HEAD,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"cannot listen at {host}, port {port}: choose another --port") from error
    return address


def _inputs(examples: dict[str, str], max_seconds: float, max_mb: int) -> list:
    """The four ways in: face video, photo, sound, video with sound. One of each pair is filled."""
    limits = f"at most {max_seconds:g} seconds and {max_mb} MB"
    with gr.Row():
        with gr.Column():
            gr.Markdown(f"### Face\nA video or a photo of one person, {limits}.")
            with gr.Tabs() as faces:
                with gr.Tab("Video", id="video"):
                    video = gr.Video(
                        label="Face video",
                        sources=["upload"],
                        height=300,
                        buttons=[],
                        elem_id="face_video",
                    )
                with gr.Tab("Photo or camera", id="photo"):
                    photo = Photo(
                        label="Photo", sources=["upload", "webcam"], type="filepath", height=300,
                        image_mode=None, buttons=[], elem_id="face_photo",
                    )  # fmt: skip
            with gr.Row():
                face_example = gr.Button("Example video", size="sm", elem_id="example_video")
                photo_example = gr.Button("Example photo", size="sm", elem_id="example_photo")
        with gr.Column():
            gr.Markdown(f"### Speech\nThe result will be as long as the speech, {limits}.")
            with gr.Tabs() as speeches:
                with gr.Tab("Sound or microphone", id="sound"):
                    sound = gr.Audio(
                        label="Speech", sources=["upload", "microphone"], type="filepath",
                        buttons=[], elem_id="speech",
                    )  # fmt: skip
                with gr.Tab("Sound of a video", id="clip"):
                    clip = gr.Video(
                        label="Video with speech", sources=["upload"], height=300,
                        buttons=[], elem_id="speech_video",
                    )  # fmt: skip
            with gr.Row():
                voice_example = gr.Button("Example voice", size="sm", elem_id="example_voice")
    for one, other in ((video, photo), (photo, video), (sound, clip), (clip, sound)):
        one.input(None, None, other, js="() => null", api_visibility="private")
    quick = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    for button, path, one, other, tabs, tab in (
        (face_example, "face", video, photo, faces, "video"),
        (photo_example, "photo", photo, video, faces, "photo"),
        (voice_example, "voice", sound, clip, speeches, "sound"),
    ):
        button.click(_give(examples[path], tab), None, [one, other, tabs], **quick)
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
    """What the buttons do. The first two tell results, original, download and a line to be read."""

    def claim(request: gr.Request, video, photo, sound, clip, *values):
        try:
            options = parse_options(dict(zip(names, values, strict=True)))
            jobs.claim(request.session_hash, video or photo, sound or clip, options)
        except Stopped:
            return gr.skip(), *_nothing("Stopped.")
        except Exception as error:  # the server's edge: one user's fault ends no other's job
            return gr.skip(), *_nothing(_words(error))
        return uuid.uuid4().hex, *_nothing()

    def work(request: gr.Request, progress=gr.Progress()):  # noqa: B008  (gradio's way)
        def tell(stage: str, done: int, total: int) -> None:
            progress(done / total, desc=f"{STAGES[stage]}: {done} of {total} frames")

        progress(0, desc="Beginning")
        try:
            result, original, note = jobs.run(request.session_hash, tell)
        except Stopped:
            return _nothing("Stopped.")
        except Exception as error:  # as above
            return _nothing(_words(error))
        return result, original, gr.DownloadButton(value=result, interactive=True), _line(note)

    def halt(request: gr.Request, *paths: str | None) -> list:
        if not jobs.stop(request.session_hash):
            return [gr.skip()] * (1 + len(paths))
        kept = [gr.skip() if path and jobs.is_example(path) else None for path in paths]
        return [_line("Stopped.", bad=True), *kept]

    def leave(request: gr.Request) -> None:
        jobs.leave(request.session_hash)

    return claim, work, halt, leave


def _still_there(*paths: str | None) -> list:
    """Empty the fields whose upload has been deleted."""
    return [gr.skip() if path and os.path.exists(path) else None for path in paths]


def _words(error: Exception) -> str:
    """What the user reads of it; what is not the user's fault is logged."""
    if isinstance(error, InputError):
        return str(error)
    logging.getLogger("app").error("a job failed", exc_info=error)
    return FAULT


def _nothing(line: str = "") -> tuple:
    """No result, no original, no download, and why."""
    return None, None, gr.DownloadButton(value=None, interactive=False), _line(line, bad=True)


def _line(text: str, bad: bool = False) -> str:
    kind = "bad" if bad else "good"
    return f'<div class="said {kind}" role="status">{html.escape(text)}</div>' if text else ""
