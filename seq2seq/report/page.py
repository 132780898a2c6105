"""One HTML file that holds everything it shows: data as JSON, one style, one script.

The browser is told to run and load nothing else: the policy has the checksums of both. The data are
text to it, and the script sets text as text. The same data give the same bytes.
"""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def page(title: str, data: Mapping[str, Any], scripts: Sequence[str]) -> str:
    """Return a page.

    Args:
        title: Of the window.
        data: What the scripts show, as plain values; numbers are finite.
        scripts: Files of this package, in their order.
    """
    style, script = _own("report.css"), "".join(map(_own, scripts))
    # The parser would end the script at "</script", wherever that stands; JSON can spell "<" so.
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _own("page.html").format(
        policy=(
            f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"style-src '{_checksum(style)}'; script-src '{_checksum(script)}'"
        ),
        title=html.escape(title),
        style=style,
        data=text.replace("<", "\\u003c"),
        script=script,
    )


def frame(document: str, height: int) -> str:
    """Return a page as an element for a notebook; it cannot touch what is around it.

    Args:
        document: The page.
        height: Pixels.
    """
    return (
        f'<iframe sandbox="allow-scripts" title="Attention of a translation" width="100%" '
        f'height="{height}" frameborder="0" srcdoc="{html.escape(document)}"></iframe>'
    )


def _own(name: str) -> str:
    return Path(__file__).with_name(name).read_text("utf-8")


def _checksum(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
