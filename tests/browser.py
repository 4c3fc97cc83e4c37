"""A page in a Chromium of its own, for the tests of pages; they skip where there is none."""

from __future__ import annotations

import contextlib
import shutil
import time
import urllib.request
from pathlib import Path

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
CHROMIUM_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic",
                  "--no-first-run", "--disable-background-networking",
                  "--disable-component-update", "--disable-sync",
                  "--window-size=1280,1400")  # fmt: skip
# urllib keeps the proxies of its first call in a process, and a test of what happens offline names
# one that is not there
urlopen = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
PATIENCE = 60  # seconds for what should take one or two


class Page:
    """What a user does with a page. folder: the browser's own; downloads go beside it. stack: what
    closes it.
    """

    def __init__(self, address: str, folder: Path, stack: contextlib.ExitStack) -> None:
        webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
        if not CHROMIUM or not DRIVER:
            pytest.skip("chromium and chromedriver are not installed")
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={folder}"):
            options.add_argument(flag)
        saved = {"download.default_directory": str(folder.parent / "downloads")}
        options.add_experimental_option("prefs", saved)
        self.driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
        stack.callback(self.driver.quit)
        self.driver.get(address)

    def find(self, selector: str):
        return next(iter(self.driver.find_elements("css selector", selector)), None)

    def wait(self, condition):
        end = time.monotonic() + PATIENCE
        while not (found := condition()):
            assert time.monotonic() < end, self.find("body").text
            time.sleep(0.1)
        return found

    def said(self, words: str) -> None:
        """Beside the result, or as an error."""
        self.wait(lambda: words in self.find("body").text)

    def video(self, field: str) -> dict:
        """Play it from its beginning."""
        state = (
            f"const v = document.querySelector('#{field} video');"
            "return v && {ready: v.readyState, duration: v.duration, at: v.currentTime, "
            "src: v.currentSrc, fault: v.error && v.error.message}"
        )
        self.wait(lambda: (found := self.driver.execute_script(state)) and found["ready"] >= 2)
        play = f"const v = document.querySelector('#{field} video'); v.muted = true; v.play()"
        self.driver.execute_script(play)
        self.wait(lambda: self.driver.execute_script(state)["at"] > 0)
        return self.driver.execute_script(state)
