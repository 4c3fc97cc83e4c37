"""How a page of gradio's is served: by this machine alone, with nothing from elsewhere."""

from __future__ import annotations

import html

import gradio as gr

from errors import InputError

# of what needs no place in the queue and refuses nothing: that would not be shown
QUICK = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
FONTS = ["system-ui", "sans-serif"]  # gradio's own would be fetched
# Nothing comes from elsewhere: gradio's trimming of videos would fetch a program and is hidden
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'"
HEAD = f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
CSS = """
[aria-label="Trim video to selection"] { display: none !important; }
.gradio-container { max-width: 1180px !important; margin: 0 auto !important; }
"""


def launch(page: gr.Blocks, host: str, port: int, max_mb: int, css: str = "") -> str:
    """Serve the page in threads of its own; its address. InputError where that cannot be had.

    max_mb: of one upload. css: what only this page needs.
    """
    theme = gr.themes.Default(font=FONTS, font_mono=["monospace"])
    try:
        _, address, _ = page.launch(
            server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True,
            max_file_size=max_mb * 2**20, ssr_mode=False, footer_links=[], theme=theme,
            css=CSS + css, head=HEAD,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"cannot listen at {host}, port {port}: choose another --port") from error
    return address


def refusal(text: str, seconds: float | None = None) -> gr.Error:
    """One line for the user, to be raised; it stays until it is closed, or for so many seconds."""
    return gr.Error(html.escape(text), duration=seconds, print_exception=False)
