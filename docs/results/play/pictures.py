"""Take the pictures of this directory, and the times that docs/play.md tells, from a running page.

seq2seq play MULTI30K_EN_FR
python docs/results/play/pictures.py http://127.0.0.1:8014/

seq2seq play MULTI30K_EN_FR MULTI30K_EN_DE --port 8015
python docs/results/play/pictures.py http://127.0.0.1:8014/ http://127.0.0.1:8015/
"""

import base64
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tests"))

from browser import Page, browser  # noqa: E402 - it is no package
from PIL import Image  # noqa: E402

from seq2seq.cli.console import show  # noqa: E402

SENTENCE = "A man in a blue shirt is standing on a ladder cleaning a window."
FINAL = (
    "[...document.querySelectorAll('.side h2 .note')].every(n => n.textContent.startsWith('beam'))"
)
WATCH = """
const state = document.querySelector('.side h2 .note');
window.times = {};
new MutationObserver(() => { times[state.textContent.split(' ')[0]] ??= performance.now() })
  .observe(state, { childList: true, characterData: true, subtree: true });
document.querySelector('#source').addEventListener('input',
  () => { times = { key: performance.now() } }, true);
"""


def until(page: Page, holds: str) -> None:
    """Wait until an expression holds."""
    deadline = time.monotonic() + 30
    while not page.js(holds):
        assert time.monotonic() < deadline, holds
        time.sleep(0.02)


def typed(page: Page, text: str) -> None:
    """Put a sentence into the box and wait for its translation."""
    page.js("document.querySelector('#source').select()")
    page.call("Input.insertText", text=text)
    until(page, FINAL)


def chosen(page: Page, index: int, change: str, told: str) -> None:
    """Choose a word of the first translation and change its attention."""
    side = ".side:first-child "
    page.mouse(f'{side}.word[data-side="target"][data-index="{index}"]', click=True)
    until(page, f"document.querySelector('{side}.places') !== null")
    page.js(change)
    until(page, f"document.querySelector('.told').textContent.includes('{told}')")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)  # the word stays pinned


MOVE = "(n => { n.value = 10; n.dispatchEvent(new Event('change')) })"
MOVE += "(document.querySelector('.menu select'))"
FLATTEN = (
    "[...document.querySelectorAll('.menu button')].find(n => n.textContent == 'Flatten').click()"
)


def save(page: Page, name: str) -> None:
    """Save what the window shows."""
    data = base64.b64decode(page.call("Page.captureScreenshot")["data"])
    Image.open(io.BytesIO(data)).convert("RGB").quantize(128).save(HERE / name, optimize=True)


def measure(page: Page, url: str) -> None:
    """Print the time from a key, the last of a sentence of 15 words, to what is shown."""
    page.open(url)
    page.js(f"(() => {{ {WATCH} }})()")
    found = []
    for colour in ("blue", "red", "green", "black", "white", "yellow", "orange", "pink"):
        for object_ in ("window", "door"):
            words = f"A man in a {colour} shirt is standing on a tall ladder cleaning a {object_}"
            typed(page, words)
            typed(page, f"{words} .")
            times = page.js("times")
            first = times.get("provisional", times["beam"])  # the final one may overtake it
            found.append([first - times["key"], times["beam"] - times["key"]])
    for name, ms in zip(("provisional", "final"), np.transpose(found), strict=True):
        show(f"{name}: median {np.median(ms):.0f} ms, longest {ms.max():.0f} ms of {len(ms)}")


def take(page: Page, one: str, two: str | None) -> None:
    """Take all pictures."""
    page.open(one, 1180, 800)
    typed(page, SENTENCE)
    chosen(page, 6, FLATTEN, "equal attention")
    save(page, "light.png")

    page.open(one, 390, 800)
    typed(page, SENTENCE)
    chosen(page, 4, FLATTEN, "equal attention")
    save(page, "phone.png")

    if two is not None:
        page.open(two, 1180, 1000, dark=True)
        typed(page, SENTENCE)
        chosen(page, 4, MOVE, "ladder")
        save(page, "dark.png")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, browser(Path(directory)) as opened:
        take(opened, sys.argv[1], *(sys.argv[2:3] or [None]))
        measure(opened, sys.argv[1])
