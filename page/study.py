"""The page of a human study, in gradio: one clip or two at a time, and what a rater says."""

from __future__ import annotations

import os

import gradio as gr

from errors import InputError
from page.serve import refusal

INTRO = """# How good are these videos?
Watch each one with its sound, to its end, as often as you like. You may stop at any time: type the
same name again, and you go on where you stopped."""
DONE = "Thank you, that was the last one. You may close this page."


def build_page(study, questions: dict[str, str], preferences: tuple[str, ...]) -> gr.Blocks:
    """The page of an evaluation.human_study.Study."""
    gr.set_static_paths([study.clips])  # and nothing else of the study: its key stays unread
    video = {"interactive": False, "height": 420, "buttons": [], "visible": False}
    hidden = {"visible": False}
    with gr.Blocks(title="Study", analytics_enabled=False) as page:
        gr.Markdown(INTRO)
        with gr.Row():
            rater = gr.Textbox(label="Your name", elem_id="rater", max_lines=1, max_length=80)
            begin = gr.Button("Begin", variant="primary", elem_id="begin")
        said = gr.Markdown(elem_id="said")
        # in the browser: what was judged goes with its scores, also to a server started again
        item = gr.Textbox(visible=False)
        with gr.Row():
            videos = [gr.Video(label=side, elem_id=side, **video) for side in ("left", "right")]
        scales = [gr.Radio([1, 2, 3, 4, 5], label=text, info="1 is bad, 5 is good", elem_id=name,
                           **hidden) for name, text in questions.items()]  # fmt: skip
        choice = gr.Radio(list(preferences), label="Which is better?", elem_id="choice", **hidden)
        send = gr.Button("Next", variant="primary", elem_id="send", **hidden)
        shown = [rater, begin, said, item, *videos, *scales, choice, send]

        def show(name: str) -> list:
            """What stands on the page when `name` is to judge their next item."""
            name = " ".join((name or "").split())
            if not name:
                raise refusal("Type your name first.", 5)
            try:
                found, done = study.next(name)
            except InputError as error:
                raise refusal(str(error)) from error
            files = [os.path.join(study.clips, name) for name in study.items.get(found, ())]
            one, two = len(files) == 1, len(files) == 2
            text = f"{done + 1} of {len(study.items)}" if found else DONE
            left, right = [*files, None, None][:2]
            return [
                gr.update(value=name, interactive=False), gr.update(visible=False), text, found,
                gr.update(value=left, visible=bool(files), label="left" if two else "video"),
                gr.update(value=right, visible=two),
                *(gr.update(value=None, visible=one) for _ in scales),  # one each: gradio eats them
                gr.update(value=None, visible=two), gr.update(visible=bool(files)),
            ]  # fmt: skip

        def answer(name: str, item: str, preference: str | None, *scores: int | None) -> list:
            """Keep it, and show the next."""
            given = dict(zip(questions, scores, strict=True))
            if len(study.items.get(item, ())) == 2:
                given = {"preference": preference}
            if None in given.values():
                raise refusal("Answer all of it first.", 5)
            try:
                study.keep(name, item, **given)
            except (InputError, OSError) as error:
                raise refusal(f"Your answer was not kept: {error}") from error
            return show(name)

        # by the queue: without it, a refusal is not shown
        looks = {"show_progress": "hidden", "api_visibility": "private", "concurrency_limit": None}
        gr.on([begin.click, rater.submit], show, rater, shown, **looks)
        send.click(answer, [rater, item, choice, *scales], shown, **looks)
    return page
