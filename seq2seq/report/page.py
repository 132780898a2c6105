"""Writes a self-contained HTML page: data as JSON, one style sheet, one script.

The content security policy lists the checksums of both, so the browser runs and loads nothing else.
Data stays text, and the script inserts it as text. The same data gives the same bytes.
"""

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def page(title: str, data: Mapping[str, Any], scripts: Sequence[str]) -> str:
    """Return a page with JSON-compatible data for its scripts, which are files of this package."""
    style, script = own("report.css"), "".join(map(own, scripts))
    return own("page.html").format(
        policy=(
            f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; "
            f"style-src '{_checksum(style)}'; script-src '{_checksum(script)}'"
        ),
        title=html.escape(title),
        style=style,
        data=embedded(data),
        script=script,
    )


def embedded(data: Mapping[str, Any]) -> str:
    """Return JSON-compatible data as it may stand in a script element; numbers must be finite."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")  # the HTML parser ends a script at any "</script"


def frame(document: str, height: int) -> str:
    """Return a page as a sandboxed element for a notebook, `height` pixels high."""
    return (
        f'<iframe sandbox="allow-scripts" title="Attention of a translation" width="100%" '
        f'height="{height}" frameborder="0" srcdoc="{html.escape(document)}"></iframe>'
    )


def own(name: str) -> str:
    """Return the text of a file of this package."""
    return Path(__file__).with_name(name).read_text("utf-8")


def _checksum(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
