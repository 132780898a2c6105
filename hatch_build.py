"""Puts the native library into wheels: compiled where they are built, so users need no compiler.

On other processors than x86-64, systems than Linux, or without a compiler, the wheel is the same
without it and fits any machine. An editable install compiles at first use.
"""

import os
import platform
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

NATIVE = Path("seq2seq/kernels/native")


class NativeLibraries(BuildHookInterface):  # type: ignore[misc] # hatchling is not installed
    """A library for each level of processors in `compiler.py`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the files of the wheel are collected."""
        compiler = shlex.split(os.environ.get("CC", "cc"))
        machine = sys.platform, platform.machine()
        if version == "editable" or machine != ("linux", "x86_64"):
            return
        if not compiler or shutil.which(compiler[0]) is None:
            self.app.display_warning("no C compiler: the wheel has no native library")
            return
        own = runpy.run_path(str(Path(self.root) / NATIVE / "compiler.py"))
        self.made, needed = Path(mkdtemp()), [(0, 0)]
        for level in own["LEVELS"].values():
            library = self.made / own["prebuilt"](level).name
            own["compile_library"](compiler, library, level)
            data, beside = library.read_bytes(), own["checksum_file"](library)
            beside.write_bytes(own["checksum"](data))
            for path in (library, beside):
                build_data["force_include"][str(path)] = str(NATIVE / "prebuilt" / path.name)
            found = re.findall(rb"GLIBC_(\d+)\.(\d+)", data)
            needed += [(int(major), int(minor)) for major, minor in found]
        # Any Python, and the oldest C library that has all the functions used.
        major, minor = max(needed)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_{major}_{minor}_x86_64"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the libraries, which are in the wheel."""
        if build_data["force_include"]:
            shutil.rmtree(self.made)
