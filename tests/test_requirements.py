"""L11: too old a Python, torch or driver, and CUDA that is not there: one line, before any work."""

import argparse
import ast
import importlib.metadata
import logging
import re
import sys
import tomllib
import warnings
from types import SimpleNamespace

import pytest
import torch
from hydra._internal.utils import get_args_parser
from runs import ROOT

from seq2seq.config.compose import to_config
from seq2seq.decoding import pretrained
from seq2seq.run import requirements
from seq2seq.run.errors import ConfigError, PlatformError, one_line

EARLY = ["train.py", "scripts/checkout.py", "seq2seq/__init__.py", "seq2seq/run/errors.py"]
EARLY += [f"seq2seq/{x}.py" for x in ("run/requirements", "__main__", "cli/__init__", "cli/main")]


def left(capsys) -> str:
    """The one line with which the program leaves; exit code 5."""
    with pytest.raises(SystemExit) as caught:
        requirements.leave_if_too_old()
    assert caught.value.code == 5
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    return err.strip()


@pytest.mark.parametrize("version", [(3, 10), (3, 9), (2, 7)])
def test_L11_python_too_old(monkeypatch, capsys, version):
    monkeypatch.setattr(sys, "version_info", (*version, 1))
    wanted = ".".join(map(str, version))
    assert left(capsys) == (
        f"error: python: is version {wanted}, which is too old. Use Python 3.11 or later."
    )


@pytest.mark.parametrize(
    ("name", "version"), [("torch", "2.9.1+cu126"), ("torch", "1.13"), ("hydra-core", "1.3.4")]
)
def test_L11_package_too_old(monkeypatch, capsys, name, version):
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda asked: version if asked == name else real(asked)
    )
    needed = requirements.PACKAGES[name]
    assert left(capsys).startswith(f"error: {name}: is version {version}, {needed} is needed. Make")


def test_L11_package_missing(monkeypatch, capsys):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert left(capsys).startswith("error: torch: is not installed. Make a fresh environment")


def test_the_versions_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == ">=" + ".".join(map(str, requirements.PYTHON))
    floors = dict(
        re.match(r"([\w-]+)>=([\d.]+)", text).groups() for text in project["dependencies"]
    )
    optional = {"matplotlib", "tensorboard"}  # a run without them only shows less
    assert {k: v for k, v in floors.items() if k not in optional} == requirements.PACKAGES


@pytest.mark.parametrize("name", EARLY)
def test_L11_an_old_python_can_read_what_refuses_it(name):
    ast.parse((ROOT / name).read_text("utf-8"), feature_version=(3, 8))


def test_hydra_starts_where_argparse_checks_help_texts(monkeypatch):
    add_argument = argparse.ArgumentParser.add_argument

    def add_and_check(self, *names, **options):  # what Python 3.14 does
        action = add_argument(self, *names, **options)
        self._check_help(action)
        return action

    def check(self, action):
        assert "%" not in action.help

    monkeypatch.setattr(argparse.ArgumentParser, "add_argument", add_and_check)
    monkeypatch.setattr(argparse._ActionsContainer, "_check_help", check, raising=False)
    with requirements.lazy_help_texts():
        assert get_args_parser().parse_args(["--cfg", "job", "seed=3"]).overrides == ["seed=3"]
    with pytest.raises(TypeError):  # else Hydra is mended: delete lazy_help_texts
        get_args_parser()


SCRIPTS = ["scripts/checkout", "scripts/decode", "scripts/evaluate", "scripts/verify"]
SCRIPTS += ["scripts/compare_runs", "scripts/check_authors_code"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_L11_versions_are_compared_before_anything_else_is_imported(name):
    body = ast.parse((ROOT / f"{name}.py").read_text("utf-8")).body
    own = name == "scripts/checkout"
    call = "leave_if_too_old()" if own else "import checkout"
    at = [i for i, node in enumerate(body) if call in ast.unparse(node)]
    before = {ast.unparse(node) for node in body[: at[0]] if isinstance(node, ast.ImportFrom)}
    ours = [text for text in before if "seq2seq" in text]
    assert len(ours) == own
    assert all(text.startswith("from seq2seq.run.requirements import ") for text in ours)
    names = {a.name for node in body[: at[0]] if isinstance(node, ast.Import) for a in node.names}
    assert names <= set(sys.stdlib_module_names)


def test_L11_a_command_compares_versions_before_it_is_imported():
    """`train.py`, `seq2seq` and `python -m seq2seq` all go through here."""
    tree = ast.parse((ROOT / "seq2seq/cli/main.py").read_text("utf-8"))
    tops = {node.module for node in tree.body if isinstance(node, ast.ImportFrom)}
    ours = {name for name in tops if name.startswith("seq2seq")}
    assert ours == {"seq2seq.cli", "seq2seq.run.requirements"}
    prepared = next(x for x in tree.body if getattr(x, "name", "") == "prepared")
    calls = [ast.unparse(node.func) for node in ast.walk(prepared) if isinstance(node, ast.Call)]
    assert calls.index("leave_if_too_old") < calls.index("import_module")
    assert 'prepared("train")(sys.argv[1:])' in (ROOT / "train.py").read_text("utf-8")


# CUDA


def no_cuda(monkeypatch, *told: str) -> None:
    def is_available() -> bool:
        for text in told:
            warnings.warn(text, stacklevel=1)
        return False

    monkeypatch.setattr(torch.cuda, "is_available", is_available)


OLD_DRIVER = (
    "CUDA initialization: The NVIDIA driver on your system is too old (found version 11040).\n"
    "Please update your GPU driver (Triggered internally at /pytorch/c10/cuda/x.cpp:109.)"
)


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ([], "no CUDA device was found"),
        (
            [OLD_DRIVER],
            "CUDA cannot be used (CUDA initialization: The NVIDIA driver on your system is too "
            "old (found version 11040). Please update your GPU driver)",
        ),
    ],
)
def test_L11_cuda_absent_or_driver_too_old(monkeypatch, told, problem):
    no_cuda(monkeypatch, *told)
    with pytest.raises(PlatformError) as caught:
        pretrained.pick_device("cuda")
    fix = "Use device=cpu or device=auto."
    assert one_line(caught.value) == f"error: device: {problem}. {fix}"


def test_L11_a_device_that_does_not_answer(monkeypatch):
    def zeros(*_, **__):
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy\nCUDA kernel errors ...")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(pretrained, "torch", SimpleNamespace(**vars(torch) | {"zeros": zeros}))
    with pytest.raises(PlatformError, match=r"^device: CUDA cannot .*are busy\)\. Use device=cpu"):
        pretrained.pick_device("cuda")


def test_a_device_by_its_number(monkeypatch):
    """Row O16 of the users' reports."""
    for name, value in (("is_available", True), ("device_count", 2), ("set_device", None)):
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr(
        pretrained, "torch", SimpleNamespace(**vars(torch) | {"zeros": lambda *_, **__: None})
    )
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert pretrained.pick_device("cuda:1") == torch.device("cuda", 1)
    assert pretrained.visible_devices() == " (CUDA_VISIBLE_DEVICES=4,6)"
    with pytest.raises(
        PlatformError, match=r"no cuda:2, only 2 from cuda:0 \(CUDA_VISIBLE_DEVICES=4,6\)"
    ):
        pretrained.pick_device("cuda:2")


@pytest.mark.parametrize("wrong", ["cuda:", "gpu", "cuda:-1", "cpu:0"])
def test_what_is_not_a_device(wrong):
    with pytest.raises(ConfigError, match=r"is not a device\. Use auto, cpu, cuda, cuda:1 or mps"):
        to_config({"device": wrong})


def test_L11_auto_takes_the_cpu_and_says_why(monkeypatch, caplog):
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)
    no_cuda(monkeypatch)
    assert pretrained.pick_device("auto").type == "cpu"
    assert not caplog.records  # a machine without CUDA is nothing to speak of
    no_cuda(monkeypatch, OLD_DRIVER)
    assert pretrained.pick_device("auto").type == "cpu"
    [record] = caplog.records
    assert record.getMessage().startswith("device=auto takes the CPU: CUDA cannot be used (CUDA in")
    assert "\n" not in record.getMessage()
