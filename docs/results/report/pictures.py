"""Take the pictures of this directory with the browser of the tests.

python docs/results/report/pictures.py MULTI30K.html QUICKSTART.html TWO.html
python docs/results/report/pictures.py LAYERS.html
"""

import base64
import io
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[2] / "tests"))

from browser import Page, browser  # noqa: E402 - it is no package
from PIL import Image  # noqa: E402

WIDTH, HEIGHT = 1180, 860
PHONE = (390, 800)


def opened(page: Page, report: str, sentence: int, *, dark: bool = False) -> str:
    """Open a report with the attention of one sentence; return what selects it."""
    page.open(Path(report), WIDTH, HEIGHT, dark=dark)
    page.js("document.querySelector('.more[aria-expanded=true]').click()")
    page.js(f"document.querySelector('#s{sentence} .more').click()")
    return f"#s{sentence} "


def save(page: Page, name: str, top: str = "") -> None:
    """Save what the window shows, from an element on."""
    if top:
        page.js(f"scrollBy(0, document.querySelector('{top}').getBoundingClientRect().top - 12)")
    page.call("Input.dispatchMouseEvent", type="mouseMoved", x=2, y=2)  # a clicked word stays
    data = base64.b64decode(page.call("Page.captureScreenshot")["data"])
    Image.open(io.BytesIO(data)).convert("RGB").quantize(128).save(HERE / name, optimize=True)


def take(page: Page, multi30k: str, quickstart: str, two: str) -> None:
    """Take all pictures."""
    page.open(Path(multi30k), WIDTH, HEIGHT)
    save(page, "summary.png")

    article = opened(page, quickstart, 231)
    page.size(WIDTH, 690)
    page.mouse(f'{article}.word[data-side="target"][data-index="0"]', click=True)
    save(page, "surprise.png", article)

    article = opened(page, multi30k, 641, dark=True)
    page.mouse("input[value=matrix] + span", click=True)
    page.mouse(f'{article}.word[data-side="target"][data-index="5"]', click=True)
    save(page, "dark.png", article)

    article = opened(page, multi30k, 641)
    page.size(*PHONE)
    page.mouse("input[value=ribbons] + span", click=True)
    page.mouse(f'{article}.word[data-side="target"][data-index="6"]', click=True)
    save(page, "phone.png", f"{article}dl.numbers")

    article = opened(page, two, 61)
    page.size(WIDTH, 1120)
    page.mouse(
        f'{article}.panel:nth-child(1) .word[data-side="target"][data-index="2"]', click=True
    )
    page.mouse(
        f'{article}.panel:nth-child(2) .word[data-side="target"][data-index="2"]', click=True
    )
    save(page, "two.png", article)


def take_layers(page: Page, layers: str) -> None:
    """Take those of a Transformer: a head to the source, and one within the source, in the dark."""
    for name, kind, form, head, word, dark in (
        ("heads.png", "heads", "ribbons", "layer 3, head 4", 6, False),
        ("within.png", "encoder", "matrix", "layer 4, head 2", 7, True),
    ):
        article = opened(page, layers, 301, dark=dark)
        page.size(WIDTH, 720)
        page.mouse(f"input[value={form}] + span", click=True)
        page.mouse(f"{article}input[value={kind}] + span", click=True)
        page.js(f"document.querySelector('{article}select').focus()")
        page.key("End")
        shown = f"document.querySelector('{article}select').selectedOptions[0].text"
        while page.js(shown).lower() != head:
            page.key("ArrowUp")
        page.mouse(f'{article}.word[data-side="target"][data-index="{word}"]', click=True)
        save(page, name, article)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as directory, browser(Path(directory)) as found:
        (take if len(sys.argv) == 4 else take_layers)(found, *sys.argv[1:])
