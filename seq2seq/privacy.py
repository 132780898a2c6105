"""Keeping folders of the machine out of what is shown or handed on.

`config.yaml` alone holds the paths as they were typed, because a resumed run needs them.
"""

import re
from dataclasses import replace

from seq2seq.settings import Config

_FOLDERS = re.compile(
    r"""(?<![^\s=:,\['"])"""
    r"""(?:(?:~[^/\s]*)?/(?:[^/,\]'"\n]*/)*|(?:[A-Za-z]:|\\)[\\/](?:[^\\/,\]'"\n]*[\\/])*)"""
)
"""From the root, a home, a drive or a host of Windows, to the last slash."""


def without_folders(text: str) -> str:
    """Shorten every absolute path in a text to its last part: `data.root=.../corpus`."""
    return _FOLDERS.sub(".../", text)


def without_paths(cfg: Config) -> Config:
    """Return a config whose files are named without their folders."""
    data = replace(
        cfg.data,
        root=without_folders(cfg.data.root),
        train=[without_folders(name) for name in cfg.data.train],
        validation=[without_folders(name) for name in cfg.data.validation],
        test=[without_folders(name) for name in cfg.data.test],
    )
    font = cfg.evaluate.heatmap_font
    evaluate = replace(cfg.evaluate, heatmap_font=font and without_folders(font))
    return replace(cfg, data=data, evaluate=evaluate)
