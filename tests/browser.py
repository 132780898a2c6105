"""A headless Chromium, driven over a pipe by its DevTools protocol: no server, no port, no driver.

Everything a page asks of the network and every complaint on its console is kept.
"""

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60  # seconds for an answer; a loaded machine may need many
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-extensions", "--disable-background-networking", "--disable-sync", "--mute-audio",
    "--force-device-scale-factor=1", "--hide-scrollbars", "--font-render-hinting=none",
    "--remote-debugging-pipe",
)  # fmt: skip
KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32, "End": 35, "Home": 36, "ArrowLeft": 37}
KEYS |= {"ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


BROWSER = next(filter(None, map(shutil.which, NAMES)), None)


@contextlib.contextmanager
def browser(folder: Path) -> Iterator["Page"]:
    """Start a browser with its profile in a folder; one page of it."""
    ours, theirs = os.pipe(), os.pipe()
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (ours[0], theirs[1])]
    null = os.open(os.devnull, os.O_RDWR)
    actions = [(os.POSIX_SPAWN_DUP2, fd, to) for fd, to in zip(high, (3, 4), strict=True)]
    actions += [(os.POSIX_SPAWN_DUP2, null, to) for to in (0, 1, 2)]
    argv = [str(BROWSER), *FLAGS, f"--user-data-dir={folder}", "about:blank"]
    home = {**os.environ, "HOME": str(folder)}
    pid = os.posix_spawn(argv[0], argv, home, file_actions=actions, setpgroup=0)
    for fd in (ours[0], theirs[1], *high, null):
        os.close(fd)
    try:
        yield Page(theirs[0], ours[1])
    finally:
        os.close(ours[1])
        os.close(theirs[0])
        os.killpg(pid, signal.SIGKILL)  # not yet waited for, so it is still ours
        os.waitpid(pid, 0)


class Page:
    """The page of a browser, as a person and a screen reader use it."""

    def __init__(self, reading: int, writing: int) -> None:
        self.reading, self.writing = reading, writing
        self.buffer, self.number, self.session = b"", 0, None
        self.events: list[dict[str, Any]] = []
        targets = self.call("Target.getTargets")["targetInfos"]
        target = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log", "Accessibility"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)

    def call(self, method: str, **params: Any) -> Any:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writing, json.dumps(message).encode() + b"\0")
        while (answer := self._next()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE
        while b"\0" not in self.buffer:
            left = deadline - time.monotonic()
            assert select.select([self.reading], [], [], max(left, 0))[0], "the browser is silent"
            block = os.read(self.reading, 1 << 20)
            assert block, "the browser is gone"
            self.buffer += block
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def open(
        self, page: Path | str, width: int = 1280, height: int = 900, *, dark: bool = False
    ) -> None:
        """Load a file or an address in a window of a size, in a system that is light or dark."""
        self.size(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.events.clear()
        url = page if isinstance(page, str) else page.resolve().as_uri()
        loader = self.call("Page.navigate", url=url)["loaderId"]
        while not any(
            e["params"].get("name") == "load" and e["params"].get("loaderId") == loader
            for e in self.events
        ):
            self.events.append(self._next())

    def size(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=width < 600)  # fmt: skip

    def js(self, expression: str) -> Any:
        code = (
            "new Promise((done, fail) => requestAnimationFrame(() => setTimeout(() => {"
            f" try {{ done({expression}) }} catch (error) {{ fail(error) }} }})))"
        )
        found = self.call(
            "Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def all(self, selector: str, value: str = "n.textContent") -> list[Any]:
        return self.js(f"[...document.querySelectorAll({json.dumps(selector)})].map(n => {value})")

    def mouse(self, selector: str, *, click: bool = False) -> None:
        """Move the mouse to the middle of an element, and press it there."""
        node = f"document.querySelector({json.dumps(selector)})"
        self.js(f"{node}.scrollIntoView({{block: 'center', inline: 'center'}})")
        box = self.js(f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
                      f"({node}.getBoundingClientRect())")  # fmt: skip
        at = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
        for kind in ("mouseMoved", "mousePressed", "mouseReleased")[: 3 if click else 1]:
            self.call("Input.dispatchMouseEvent", type=kind, **at)

    def key(self, *names: str) -> None:
        for name in names:
            code = {"windowsVirtualKeyCode": KEYS[name], "key": name, "code": name}
            text = {"text": {"Enter": "\r", " ": " "}[name]} if name in ("Enter", " ") else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def requests(self) -> list[str]:
        """What the page asked for, itself left out."""
        sent = (e["params"] for e in self.events if e["method"] == "Network.requestWillBeSent")
        return [s["request"]["url"] for s in sent if s["requestId"] != s["loaderId"]]

    def complaints(self) -> list[str]:
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [json.dumps(e["params"]) for e in self.events if e["method"] in kinds]
