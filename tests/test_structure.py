"""House rules that a reader can rely on, read from the source itself.

Each rule is tried on a line that breaks it before it is trusted with the project.
"""

import ast
import logging
import sys
from pathlib import Path

import pytest
import torch
from conftest import PAD, VOCAB, random_batch, tiny_model

import seq2seq
from seq2seq.errors import ConfigError
from seq2seq.settings import Backend, Normalize
from seq2seq.training.loss import nll

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "seq2seq").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])
SOURCES.append(ROOT / "train.py")


def name_of(path: Path) -> str:
    """`seq2seq.data.text`; `train` and `scripts.decode` for what is no part of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def test_the_sources_were_found():
    assert len(MODULES) == len(SOURCES) > 50
    assert {"seq2seq", "seq2seq.config", "seq2seq.data.toy.lexicon", "scripts.decode"} <= {
        *MODULES
    }


# Imports ----------------------------------------------------------------------------------------


def imports(tree: ast.AST) -> set[str]:
    """Modules that a source imports, anywhere in it; `from a import b` counts as a, or as a.b."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = names & set(MODULES)
            found |= inner if inner else {str(node.module)}
    return found


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


OURS = "seq2seq"
MODEL, DATA = "seq2seq.model", "seq2seq.data"
CONFIG, SETTINGS = "seq2seq.config", "seq2seq.settings"
ERRORS, KERNELS = "seq2seq.errors", "seq2seq.kernels"
FSOPS, READING, RUN = "seq2seq.fsops", "seq2seq.reading", "seq2seq.run"
PRIVACY = "seq2seq.privacy"
PLAIN_YAML = "seq2seq.plain_yaml"
MEMORY, PRECISION = "seq2seq.memory", "seq2seq.precision"
TRAINING, INFERENCE = "seq2seq.training", "seq2seq.inference"

MAY_IMPORT = [
    # The first line that fits a module says which modules of ours it may import.
    (ERRORS, []),
    (SETTINGS, [SETTINGS]),
    (PLAIN_YAML, [ERRORS, READING]),
    (CONFIG, [SETTINGS, ERRORS, PLAIN_YAML]),
    ("seq2seq.fidelity", ["seq2seq.fidelity", CONFIG, SETTINGS]),
    ("seq2seq.signals", []),
    (PRECISION, [SETTINGS]),
    (PRIVACY, [SETTINGS]),
    (FSOPS, [ERRORS]),
    (READING, [ERRORS]),
    (
        "seq2seq.provenance",
        [SETTINGS, ERRORS, PRIVACY, RUN, READING, KERNELS, "seq2seq.pretrained", OURS],
    ),
    (
        "seq2seq.export",
        [CONFIG, SETTINGS, RUN, READING, "seq2seq.data.prepare", "seq2seq.training.checkpoint"],
    ),
    (MEMORY, [KERNELS]),
    (RUN, [ERRORS, FSOPS, READING, OURS]),  # the version
    ("seq2seq.model.rnnsearch", [MODEL, ERRORS, SETTINGS, KERNELS]),
    (MODEL, [MODEL, ERRORS]),
    (KERNELS, [KERNELS, MODEL, FSOPS]),
    ("seq2seq.data.toy", ["seq2seq.data.toy", "seq2seq.data.pair", ERRORS]),
    (DATA, [DATA, SETTINGS, ERRORS, RUN, READING]),
    (
        "seq2seq.inference.search",
        ["seq2seq.model.attention", "seq2seq.model.decoder", MODEL],
    ),
    (
        "seq2seq.inference.by_length",  # names runs by what their configs differ in
        [INFERENCE, DATA, SETTINGS, ERRORS, RUN, READING, PLAIN_YAML],
    ),
    ("seq2seq.report.page", []),
    ("seq2seq.report.sentence", ["seq2seq.report.page", INFERENCE]),
    (
        "seq2seq.inference.translate",  # a translation shows itself
        [INFERENCE, MODEL, DATA, SETTINGS, ERRORS, MEMORY, PRECISION, "seq2seq.report.sentence"],
    ),
    (
        "seq2seq.groundhog",
        ["seq2seq.groundhog", MODEL, SETTINGS, ERRORS, "seq2seq.training.loss"]
        + [f"{DATA}.{name}" for name in ("batching", "text")],
    ),
    (INFERENCE, [INFERENCE, MODEL, DATA, SETTINGS, ERRORS, RUN, READING, MEMORY, PRECISION]),
    (
        TRAINING,
        [TRAINING, MODEL, DATA, CONFIG, SETTINGS, ERRORS, RUN, READING, PRIVACY, PLAIN_YAML]
        + [MEMORY, PRECISION, "seq2seq.signals"]
        # validation decodes, scores and draws as the last two stages do
        + [f"{INFERENCE}.{name}" for name in ("translate", "scoring", "alignment", "by_length")],
    ),
]


def offences(name: str, tree: ast.AST) -> set[str]:
    """Imports of ours that a module must not have."""
    allowed = next((to for module, to in MAY_IMPORT if within(name, module)), None)
    if allowed is None:
        return set()
    exact = {OURS}  # the package itself is not everything below it
    return {
        found
        for found in imports(tree)
        if within(found, OURS)
        and not (found in allowed or within(found, *(a for a in allowed if a not in exact)))
    }


@pytest.mark.parametrize("name", [name for name in MODULES if name.startswith("seq2seq.")])
def test_imports_go_one_way(name):
    assert not offences(name, MODULES[name])


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("seq2seq.errors", "import seq2seq.run"),
        ("seq2seq.config", "from seq2seq.data.text import read_lines"),
        ("seq2seq.run", "from seq2seq.settings import Config"),
        ("seq2seq.model.decoder", "from seq2seq.settings import ModelConfig"),
        ("seq2seq.model.attention", "from seq2seq import settings"),
        ("seq2seq.model.encoder", "def f():\n    from seq2seq.kernels import read_fused"),
        ("seq2seq.kernels.scan", "from seq2seq.data.batching import Batch"),
        ("seq2seq.data.batching", "from seq2seq.model import RNNSearch"),
        ("seq2seq.data.prepare", "import seq2seq.training.loss"),
        ("seq2seq.inference.translate", "from seq2seq.training.trainer import validate"),
        ("seq2seq.inference.search", "from seq2seq.data.tokenizer import EOS"),
        ("seq2seq.training.optim", "from seq2seq.stages import train"),
    ],
)
def test_a_wrong_import_is_found(name, line):
    assert name in MODULES
    assert offences(name, ast.parse(line))


def importers(*packages: str) -> set[str]:
    return {
        name for name, tree in MODULES.items() if any(within(i, *packages) for i in imports(tree))
    }


def test_only_config_and_train_know_hydra():
    assert importers("hydra", "omegaconf") == {"seq2seq.config", "train"}


def test_only_rnnsearch_knows_settings_in_the_model():
    assert {name for name in importers(SETTINGS, CONFIG) if within(name, MODEL)} == {
        "seq2seq.model.rnnsearch"
    }


def test_nobody_but_train_imports_the_stages():
    assert importers("seq2seq.stages") == {"train"}


def test_nobody_but_its_script_imports_the_witness():
    inside = {name for name in MODULES if within(name, "seq2seq.groundhog")}
    assert importers("seq2seq.groundhog") - inside == {"scripts.check_authors_code"}


NEED_NO_KERNELS = {
    "seq2seq.model.rnnsearch": "choose_backend",
    "seq2seq.memory": "keep_freed",
    "seq2seq.provenance": "_steps",
}


def test_kernels_are_imported_where_nothing_needs_them():
    """In functions that go on without."""
    assert {n for n in importers(KERNELS) if not within(n, KERNELS)} == {*NEED_NO_KERNELS}
    for module, name in NEED_NO_KERNELS.items():
        tree = MODULES[module]
        [function] = [n for n in ast.walk(tree) if getattr(n, "name", None) == name]
        tries = [n for n in function.body if isinstance(n, ast.Try)]
        [guarded] = [n for n in tries if any(within(i, KERNELS) for i in imports(n))]
        assert any("ImportError" in ast.unparse(handler.type) for handler in guarded.handlers)
        tree.body.remove(function)
        try:
            assert not any(within(i, KERNELS) for i in imports(tree))
        finally:
            tree.body.append(function)


@pytest.mark.parametrize(
    "script",
    [
        "train",
        "scripts.decode",
        "scripts.evaluate",
        "scripts.score",
        "scripts.check_authors_code",
        "seq2seq.cli",
    ],
)
def test_help_needs_no_torch(script):
    """What a script imports at its top, and all that this imports at its top."""
    waiting, seen = [script], set()
    while waiting:
        name = waiting.pop()
        seen.add(name)
        top = ast.Module(
            [
                n
                for n in MODULES.get(name, ast.Module([], [])).body
                if isinstance(n, ast.Import | ast.ImportFrom)
            ],
            [],
        )
        waiting += [found for found in imports(top) - seen]
    assert not {name for name in seen if within(name, "torch", "datasets", "matplotlib")}


# Calls ------------------------------------------------------------------------------------------

NO_MODULES = ("pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "runpy")
NO_MODULES += ("subprocess", "importlib", "ctypes", "code", "hydra.utils", "matplotlib.pyplot")
NO_MODULES += ("torch.hub", "torch.jit", "torch.package", "torch.export", "torch.serialization")
NO_WORDS = {"builtin eval", "builtin exec", "builtin compile", "builtin __import__"}
NO_WORDS |= {"torch.load", "torch.save", "np.save", "os.system", "os.popen", "OmegaConf.load"}
NO_WORDS |= {"torch.hub", "torch.jit", "torch.package", "torch.export", "read_pickle", "to_pickle"}
NO_WORDS |= {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.unsafe_load_all"}
NO_WORDS |= {"yaml.full_load", "yaml.full_load_all", "UnsafeLoader", "FullLoader", "yaml.Loader"}
NO_WORDS |= {"instantiate", "pyplot", "allow_pickle", "weights_only", "_target_", "__reduce__"}


def words(node: ast.AST) -> set[str]:
    """What a node spells: `eval` is "builtin eval", but `model.eval` is not."""
    match node:
        case ast.Name(id=word):
            return {word, f"builtin {word}"}
        case ast.Attribute(attr=word):
            return {word, ast.unparse(node)}
        case ast.alias(name=word) | ast.keyword(arg=str(word)) | ast.Constant(value=str(word)):
            return {word}
    return set()


def forbidden(name: str, tree: ast.AST) -> set[str]:
    """What turns strings into code or bytes into objects, and what prints."""
    modules = {found for found in imports(tree) if within(found, *NO_MODULES)}
    refused = NO_WORDS if printing(name) else {*NO_WORDS, "builtin print"}
    spelt = set().union(*(words(node) & refused for node in ast.walk(tree)))
    allowed = {"importlib.metadata"} | ({"subprocess"} if measuring(name) else set())
    allowed |= {"subprocess", "ctypes"} if name == BUILD else set()
    return modules - allowed | spelt


BUILD = "seq2seq.kernels.native.build"
"""Compiles a file of this package; nothing of a run comes near it."""


def measuring(name: str) -> bool:
    """The benchmark starts peers, and processes whose memory holds nothing else."""
    return within(name, "seq2seq.benchmark", "scripts.benchmark")


def printing(name: str) -> bool:
    """Errors have one place that prints them; scripts talk to a person."""
    return name == ERRORS or within(name, "scripts")


@pytest.mark.parametrize("name", MODULES)
def test_U12_no_strings_become_code_and_no_bytes_become_objects(name):
    assert not forbidden(name, MODULES[name])


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "import marshal as m",
        "import torch\ntorch.load('x')",
        "load = torch.load",
        "eval('1')",
        "f = exec",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "yaml.unsafe_load(text)",
        "np.load(f, allow_pickle=True)",
        "from hydra.utils import instantiate",
        "hydra.utils.instantiate(cfg)",
        "import matplotlib.pyplot as plt",
        "from matplotlib import pyplot",
        "print('x')",
        "log = print",
        "__import__('os')",
        "importlib.import_module(name)\nimport importlib",
        "import subprocess",
        "cfg['_target_']",
        "os.system('x')",
        "import dill",
        "from joblib import load",
        "torch.hub.load('x')",
        "from torch.jit import load",
        "torch.export.load('x.pt2')",
        "pandas.read_pickle('x')",
        "yaml.load_all(text, yaml.FullLoader)",
        "OmegaConf.load('x.yaml')",
        "torch.load('x', weights_only=True)",
        "runpy.run_path('x')\nimport runpy",
    ],
)
def test_U12_a_forbidden_line_is_found(line):
    assert forbidden("seq2seq.data.text", ast.parse(line))


def test_U12_what_only_looks_forbidden_is_not():
    fine = "model.eval()\nre.compile('x')\nyaml.safe_load(t)\nimport importlib.metadata\nx.load(y)"
    assert not forbidden("seq2seq.data.text", ast.parse(fine))
    assert not forbidden("scripts.decode", ast.parse("print(1)"))


def test_U12_no_config_names_a_class():
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert len(files) > 25
    assert not [path for path in files if "_target_" in path.read_text(encoding="utf-8")]


# Nothing needs the kernels ----------------------------------------------------------------------


@pytest.fixture
def blocked(monkeypatch):
    """A tree without `seq2seq/kernels`."""
    for name in [name for name in sys.modules if within(name, KERNELS)]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, KERNELS, None)
    monkeypatch.delattr(seq2seq, "kernels", raising=False)
    monkeypatch.setattr(logging.getLogger("seq2seq"), "propagate", True)


@pytest.mark.usefixtures("blocked")
def test_a_model_trains_and_decodes_without_kernels(caplog):
    with caplog.at_level(logging.INFO, "seq2seq"):
        model = tiny_model(1, backend=Backend.auto)
    [record] = caplog.records
    assert record.getMessage().startswith(
        "the decoder trains on the reference backend: import of seq2seq."
    )
    batch = random_batch(1)
    costs = []
    for _ in range(2):
        output = model(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask)
        loss = nll(output, batch).objective(Normalize.words)
        costs.append(loss.item())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():  # by hand: torch.optim takes seconds to import
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.01 * gradient
    assert costs[1] < costs[0]
    with torch.inference_mode():
        source = model.annotate(batch.src, batch.src_mask)
        state = model.decoder.initial_state(source)
        start = torch.full((batch.num_sentences,), PAD)
        prediction = model.decoder.predict(start, state, source)
        y = prediction.logits.argmax(dim=-1)
        model.decoder.advance(state, prediction.c, y_prev=start, y=y)
    assert prediction.logits.shape == (batch.num_sentences, VOCAB)


@pytest.mark.usefixtures("blocked")
def test_kernels_that_were_asked_for_and_are_missing_are_an_error():
    with pytest.raises(ConfigError, match=r"model\.backend=fused: import of seq2seq\.kernels"):
        tiny_model(1, backend=Backend.fused)
