"""The wheel, in an environment of its own and in a directory without the repository."""

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from runs import ROOT, environment

pytestmark = pytest.mark.slow

COMMANDS = {
    "train +experiment=debug threads=1": "run        outputs/debug/",
    "decode latest": "\n",
    "evaluate debug": "BLEU",
    "report latest": "report.html",
    "verify latest": "  ok",
    "runs": "finished",
}


def image_source(to: Path) -> Path:
    """Copy what `.dockerignore` lets into an image, which has to suffice to build the wheel."""
    to.mkdir()
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        if line.startswith("!"):
            source = ROOT / line[1:]
            copy = shutil.copytree if source.is_dir() else shutil.copy
            copy(source, to / source.name)
    return to


def test_an_installed_wheel_trains_decodes_scores_reports_and_verifies(tmp_path):
    pytest.importorskip("hatchling", reason="builds the wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    source = image_source(tmp_path / "source")
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    # An environment with the wheel, and the dependencies of this process but not this checkout.
    venv.create(tmp_path / "env", with_pip=True)
    programs = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"
    install = [python, "-m", "pip", "install", "--no-deps", "--no-index", wheel]
    subprocess.run(install, check=True, capture_output=True)
    [package] = (tmp_path / "env").rglob("seq2seq/__init__.py")
    others = [path for path in sys.path if "site-packages" in path and path != str(ROOT)]
    (package.parents[1] / "others.pth").write_text("\n".join(others))
    assert (package.parent / "py.typed").exists()
    assert (package.parent / "data" / "corpora.yaml").exists()

    work = tmp_path / "work"
    work.mkdir()
    own = {name: value for name, value in environment().items() if name != "PYTHONPATH"}
    for line, shown in COMMANDS.items():
        command = [programs / "seq2seq", *line.split()]
        done = subprocess.run(
            command, cwd=work, env=own, input=b"a line\n", capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        assert shown in done.stdout.decode(), line
    assert [path.name for path in work.iterdir()] == ["outputs"]
