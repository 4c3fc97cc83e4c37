"""app.py and page/layout.py: the command line, what the server gives away, the page in Chromium."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from browser import PATIENCE, Page, urlopen
from conftest import REPOSITORY, assert_refused, run_script
from test_app_jobs import files, speech

from app import serving, sweep, warm_up
from backends.base import Backend
from lipsync.engine import LipSync

MAX_SECONDS = 4


class Gated:
    """A LipSync whose jobs begin when `gate` is open."""

    def __init__(self, lipsync) -> None:
        self.lipsync, self.gate, self.device = lipsync, threading.Event(), lipsync.device
        self.gate.set()

    def run(self, *args, **options):
        assert self.gate.wait(PATIENCE)
        return self.lipsync.run(*args, **options)


@pytest.fixture(scope="module")
def lipsync(weights):
    return Gated(LipSync(weights, "cpu", backend="torch"))


def test_no_checkpoint_no_gradio_one_line_each(weights):
    assert_refused(run_script("app.py", "--checkpoint_path", "no.pth"), "not found: no.pth")
    code = (
        "import sys; sys.modules['gradio'] = None\n"
        "from app import get_args_parser, main\nfrom errors import run_cli\n"
        f"run_cli(main, get_args_parser(), ['--checkpoint_path', {str(weights)!r}])"
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert_refused(result, "gradio", "pip install -r requirements-app.txt")


@pytest.fixture(scope="module")
def site(lipsync):
    """Address of a running page and the folder of its files."""
    pytest.importorskip("gradio", reason="gradio is not installed: requirements-app.txt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    args = argparse.Namespace(host="127.0.0.1", port=port, max_mb=1, max_seconds=MAX_SECONDS)
    with serving(lipsync, args) as address:
        folder = Path(os.environ["GRADIO_TEMP_DIR"]).parent
        yield address, folder
    assert not folder.exists()


def status(url: str, data: bytes | None = None, **headers: str) -> int:
    request = urllib.request.Request(url, data, headers)
    try:
        with urlopen(request, timeout=PATIENCE) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def form(name: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    """A file as browsers upload it: body and headers."""
    head = f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return head.encode() + content + b"\r\n--x--\r\n", kind


def claim(address: str, photo: str, sound: str) -> dict:
    """Press the button past the page, with these paths on the server: how it ended."""
    with urlopen(f"{address}config") as answer:
        config = json.load(answer)
    event = next(event for event in config["dependencies"] if event["api_name"] == "claim")
    files = [{"path": path, "meta": {"_type": "gradio.FileData"}} for path in (photo, sound)]
    fields = [
        next(c for c in config["components"] if c["id"] == i)["props"].get("value")
        for i in event["inputs"]
    ]
    data = [None, *files, None, *fields[4:]]
    body = json.dumps({"fn_index": event["id"], "session_hash": "eve", "data": data}).encode()
    kind = {"Content-Type": "application/json"}
    assert status(f"{address}gradio_api/queue/join", body, **kind) == 200
    with urlopen(f"{address}gradio_api/queue/data?session_hash=eve") as stream:
        messages = [json.loads(line[6:]) for line in stream if line.startswith(b"data: ")]
    return next(message for message in messages if message["msg"] == "process_completed")


def test_only_this_machine_and_only_own_files(site):
    address, folder = site
    examples = folder / "examples"
    port = int(address.rstrip("/").rsplit(":", 1)[1])
    with pytest.raises(ConnectionRefusedError):  # 0.0.0.0 would answer here
        socket.create_connection(("127.0.0.2", port), timeout=5)
    with urlopen(address) as answer:
        assert b"Content-Security-Policy" in answer.read()  # nothing from other sites
    assert status(f"{address}gradio_api/file={examples / 'photo.jpg'}") == 200
    for path in (REPOSITORY / "README.md", REPOSITORY / "app.py", "/etc/passwd"):
        assert status(f"{address}gradio_api/file={path}") == 403
    body, headers = form("a.wav", bytes(2**20 + 1))
    assert status(f"{address}gradio_api/upload", body, **headers) == 413


def test_a_path_that_was_not_uploaded_is_not_read(site):
    address, folder = site
    voice = str(folder / "examples/voice.wav")
    photo = str(REPOSITORY / "docs" / "first_minute.jpg")
    assert not claim(address, photo, voice)["success"]
    assert files(folder) == set()


def test_a_text_named_jpg_is_refused_in_plain_words(site):
    address, folder = site
    voice = str(folder / "examples/voice.wav")
    body, headers = form("me.jpg", b"not a picture")
    request = urllib.request.Request(f"{address}gradio_api/upload", body, headers)
    with urlopen(request) as answer:
        (photo,) = json.load(answer)
    ended = claim(address, photo, voice)
    assert "cannot be decoded: me.jpg" in ended["output"]["error"] and not ended["success"]
    assert files(folder) == set()


def test_what_is_left_of_an_upload_that_broke_off_is_swept(site):
    address, folder = site
    host, port = address.removeprefix("http://").rstrip("/").split(":")
    body, headers = form("secret.mp4", bytes(300_000))
    head = {"Host": host, "Content-Length": str(2**20)} | headers
    lines = ["POST /gradio_api/upload HTTP/1.1", *(f"{name}: {head[name]}" for name in head)]
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body[:250_000])
        while not files(folder):
            time.sleep(0.1)
    assert len(files(folder)) == 1
    sweep(folder / "served", 3600)  # too fresh
    assert len(files(folder)) == 1
    sweep(folder / "served", 0)
    assert files(folder) == set()


def test_warm_up_makes_every_network():
    backend = Backend(argparse.Namespace(img_size=8, encode_face=None, decode=None))
    made, parts = (np.zeros((1, 8, 8, 3), np.uint8),), []
    backend._run = lambda part, *_: parts.append(part) or made
    warm_up(backend)
    assert parts == ["whole", "encode", "decode"]
    warm_up(None)  # --int8


@pytest.fixture
def open_page(site, tmp_path):
    """Opens the page in a Chromium of its own."""
    with contextlib.ExitStack() as stack:
        yield lambda name: AppPage(site[0], tmp_path / name, stack)


class AppPage(Page):
    def __init__(self, *about) -> None:
        super().__init__(*about)
        self.wait(lambda: self.find("#face_video input[type=file]"))

    def give(self, field: str, path: object) -> None:
        """Upload into a field; its input goes when the file is there."""
        self.find(f"#{field} input[type=file]").send_keys(str(path))
        self.wait(lambda: not self.find(f"#{field} input[type=file]"))

    def go(self) -> None:
        self.find("#go").click()


def test_a_bad_upload_then_a_video_that_plays(open_page, site, tmp_path):
    page, folder = open_page("ann"), site[1]
    text = tmp_path / "holiday.mp4"
    text.write_text("not a video\n")
    page.give("face_video", text)
    page.give("speech", speech(tmp_path / "speech.wav", 1))
    page.go()
    page.said("video cannot be decoded: holiday.mp4")
    page.wait(lambda: page.find("#face_video input[type=file]"))  # the field is empty again
    assert files(folder) == set()
    page.give("face_video", folder / "examples/face.mp4")
    page.give("speech", tmp_path / "speech.wav")
    page.go()
    page.said("25 frames at 25 frames a second")
    assert page.video("result")["duration"] == pytest.approx(1)
    assert page.video("original")["duration"] == pytest.approx(1)
    page.find("#download").click()
    page.wait(lambda: files(tmp_path / "downloads") == {"result_voice.mp4"})
    assert files(folder) == {"result_voice.mp4", "original.mp4"}


def test_two_users_at_once_and_one_who_leaves(open_page, lipsync, site, tmp_path):
    ann, bob, folder = open_page("ann"), open_page("bob"), site[1]
    for page, seconds in ((ann, 1), (bob, 2)):
        page.find("#example_video").click()
        page.wait(lambda page=page: not page.find("#face_video input[type=file]"))
        page.give("speech", speech(tmp_path / f"{seconds}.wav", seconds))
    lipsync.gate.clear()
    try:
        ann.go()
        ann.wait(lambda: "Beginning" in ann.find("#result").text)
        bob.go()
        bob.wait(lambda: "queue" in bob.find("#result").text)  # his place in it
    finally:
        lipsync.gate.set()
    ann.said("25 frames")
    bob.said("50 frames")
    first, second = ann.video("result"), bob.video("result")
    assert (first["duration"], second["duration"]) == (pytest.approx(1), pytest.approx(2))
    assert first["src"] != second["src"]
    lipsync.gate.clear()
    try:
        bob.give("speech", tmp_path / "2.wav")
        bob.go()
        bob.wait(lambda: "Beginning" in bob.find("#result").text)
        bob.driver.get("about:blank")
        ann.give("speech", tmp_path / "1.wav")
        ann.go()
        ann.wait(lambda: "queue" in ann.find("#result").text)
    finally:
        lipsync.gate.set()
    ann.said("25 frames")
    ann.wait(lambda: files(folder) == {"result_voice.mp4", "original.mp4"})
    assert len(list(folder.rglob("result_voice.mp4"))) == 1
