"""House rules that a reader can rely on, read from the source itself.

Each rule is tried on a line that breaks it before it is trusted with the project.
"""

import ast
import logging
import re
import sys
from functools import cache
from pathlib import Path

import pytest
import torch
from conftest import PAD, VOCAB, batch_loss, random_batch, tiny_model

import seq2seq
from seq2seq.cli import COMMANDS
from seq2seq.config.schema import Backend, Normalize

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([*(ROOT / "seq2seq").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])
SOURCES.append(ROOT / "train.py")


def name_of(path: Path) -> str:
    """`seq2seq.data.text`; `train` and `scripts.decode` for what is no part of the package."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


@cache
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Every node of a source, walked once for all rules."""
    return tuple(ast.walk(tree))


def test_the_sources_were_found():
    assert len(modules()) == len(SOURCES) > 50
    assert {
        "seq2seq",
        "seq2seq.config.compose",
        "seq2seq.data.toy.lexicon",
        "scripts.decode",
    } <= {*modules()}


# Imports ----------------------------------------------------------------------------------------


@cache
def imports(tree: ast.AST) -> frozenset[str]:
    """Modules that a source imports, anywhere in it; `from a import b` counts as a, or as a.b."""
    found = set()
    for node in nodes(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            inner = names & modules().keys()
            found |= inner if inner else {str(node.module)}
    return frozenset(found)


def within(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


OURS, KERNELS = "seq2seq", "seq2seq.kernels"
ERRORS, COMPOSE = "seq2seq.run.errors", "seq2seq.config.compose"

MAY_NOT_IMPORT = [
    # (modules, what none of them may import, exceptions)
    (ERRORS, [OURS], []),
    (
        "seq2seq.config",
        ["seq2seq"],
        [
            "seq2seq.config",
            ERRORS,
            *(f"seq2seq.run.{x}" for x in ("plain_yaml", "jsonable", "naming")),
        ],
    ),
    (
        "seq2seq.model",
        ["seq2seq"],
        ["seq2seq.model", ERRORS, "seq2seq.config.schema", "seq2seq.config.registry", KERNELS],
    ),
    (KERNELS, ["seq2seq"], [KERNELS, ERRORS, "seq2seq.model", "seq2seq.run.writing"]),
    (
        "seq2seq.data",
        ["seq2seq"],
        ["seq2seq.data", "seq2seq.config.schema", "seq2seq.config.registry", "seq2seq.run"],
    ),
    (
        "seq2seq.decoding.search",
        ["seq2seq"],
        ["seq2seq.model.protocols", "seq2seq.decoding.ranking"],
    ),
    ("seq2seq.decoding.ranking", ["seq2seq"], []),
    ("seq2seq.play.engine", ["seq2seq"], [ERRORS]),
    ("seq2seq", ["seq2seq.cli"], ["seq2seq.cli.console"]),
]
"""What a reader can rely on beside the absence of cycles."""


def offences(name: str, tree: ast.AST) -> set[str]:
    found = set()
    for modules, banned, exceptions in MAY_NOT_IMPORT:
        own = within(name, "seq2seq.cli", "seq2seq.__main__")
        if within(name, modules) and not (modules == OURS and own):
            found |= {i for i in imports(tree) if within(i, *banned) and not within(i, *exceptions)}
    return found


def test_imports_go_one_way():
    found = {name: offences(name, tree) for name, tree in modules().items() if within(name, OURS)}
    assert not {name: wrong for name, wrong in found.items() if wrong}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("seq2seq.run.errors", "import seq2seq.run"),
        ("seq2seq.config.compose", "from seq2seq.data.text import read_lines"),
        ("seq2seq.model.decoder", "from seq2seq.data.batching import Batch"),
        ("seq2seq.kernels.scan", "from seq2seq.data.batching import Batch"),
        ("seq2seq.data.batching", "from seq2seq.model import EncoderDecoder"),
        ("seq2seq.data.prepare", "import seq2seq.training.loss"),
        ("seq2seq.decoding.search", "from seq2seq.data.tokenizer import EOS"),
        ("seq2seq.training.optim", "from seq2seq.cli.stages import train"),
    ],
)
def test_a_wrong_import_is_found(name, line):
    assert name in modules()
    assert offences(name, ast.parse(line))


def importers(*packages: str) -> set[str]:
    return {
        name for name, tree in modules().items() if any(within(i, *packages) for i in imports(tree))
    }


def cycles(graph: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules of which each imports, by way of others, itself."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            new = graph[waiting.pop()] & graph.keys() - seen
            seen |= new
            waiting += new
        return seen

    below = {name: reached(name) for name in graph}
    groups = {
        frozenset(other for other in graph if other in below[name] and name in below[other])
        for name in graph
        if name in below[name]
    }
    return [set(group) for group in groups]


def test_no_import_comes_back():
    found = cycles({name: imports(tree) for name, tree in modules().items()})
    assert not found


def test_a_cycle_is_found():
    assert cycles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [{"b", "c"}]


def test_only_compose_and_train_know_hydra():
    assert importers("hydra", "omegaconf") == {COMPOSE, "seq2seq.cli.train"}


def test_only_play_knows_the_server_and_only_its_command_knows_play():
    assert importers("starlette", "uvicorn") == {"seq2seq.play.server"}
    found = importers("seq2seq.play")
    assert {name for name in found if not within(name, "seq2seq.play")} == {"seq2seq.cli.play"}


def test_only_builders_know_the_schema_in_the_model():
    assert {name for name in importers("seq2seq.config") if within(name, "seq2seq.model")} == {
        "seq2seq.model.build",
        "seq2seq.model.build_transformer",
    }


@pytest.mark.parametrize(
    "script",
    [
        "train",
        "scripts.decode",
        *(module for module, _ in COMMANDS.values()),
        "seq2seq.cli.overview",
        "scripts.check_authors_code",
        "seq2seq.cli.console",
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
                for n in modules().get(name, ast.Module([], [])).body
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


def dotted(node: ast.AST) -> str:
    """`a.b.c`, and nothing for what is no chain of names: a twentieth of the time of unparse."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def words(node: ast.AST) -> set[str]:
    """What a node spells: `eval` is "builtin eval", but `model.eval` is not."""
    match node:
        case ast.Name(id=word):
            return {word, f"builtin {word}"}
        case ast.Attribute(attr=word):
            return {word, dotted(node)}
        case ast.alias(name=word) | ast.keyword(arg=str(word)) | ast.Constant(value=str(word)):
            return {word}
    return set()


def forbidden(name: str, tree: ast.AST) -> set[str]:
    """What turns strings into code or bytes into objects, and what prints."""
    modules = {found for found in imports(tree) if within(found, *NO_MODULES)}
    refused = NO_WORDS if printing(name) else {*NO_WORDS, "builtin print"}
    spelt = set().union(*(words(node) & refused for node in nodes(tree)))
    allowed = {"importlib.metadata"} | ({"subprocess"} if measuring(name) else set())
    allowed |= {"subprocess", "ctypes"} if name == BUILD else set()
    allowed |= {"subprocess"} if name == COMPILER else set()
    allowed |= {"subprocess"} if name in (PROVENANCE, ALIGNERS) else set()
    allowed |= {"importlib"} if name in (EXTENSIONS, COMMAND, PIPELINE) else set()
    return modules - allowed | spelt


BUILD = "seq2seq.kernels.native.build"
COMPILER = "seq2seq.kernels.native.compiler"
"""They compile files of this package, and load them; nothing of a run comes near it."""

PROVENANCE = "seq2seq.run.provenance"
"""Asks Git for the commit of this package, in words that are always the same."""

ALIGNERS = "seq2seq.evaluation.aligners"
"""Calls fast_align and eflomal where a person asks for aligners; they get numbers, never text."""

EXTENSIONS = "seq2seq.config.extensions"
"""Imports the modules that a user names or has installed; no run and no config can name one."""


COMMAND = "seq2seq.cli.main"
"""Imports the module of a command, from the package's own table."""

PIPELINE = "scripts.pipeline"
"""Imports the modules whose functions it times, from a table of its own."""


def measuring(name: str) -> bool:
    """The benchmark starts peers, and processes whose memory holds nothing else."""
    return within(name, "scripts.bench", "scripts.benchmark", PIPELINE)


def printing(name: str) -> bool:
    """Errors have one place that prints them; scripts talk to a person."""
    return name == ERRORS or within(name, "scripts")


def test_U12_no_strings_become_code_and_no_bytes_become_objects():
    found = {name: forbidden(name, tree) for name, tree in modules().items()}
    assert not {name: wrong for name, wrong in found.items() if wrong}


@pytest.mark.parametrize(
    "line",
    [
        *("from pickle import loads", "import marshal as m", "from joblib import load"),
        *("load = torch.load", "f = exec", "__import__('os')", "log = print", "cfg['_target_']"),
        *("np.load(f, allow_pickle=True)", "pandas.read_pickle('x')", "OmegaConf.load('x.yaml')"),
        *("from hydra.utils import instantiate", "hydra.utils.instantiate(cfg)"),
        *("from matplotlib import pyplot", "import subprocess", "from torch.jit import load"),
        "yaml.load_all(text, yaml.FullLoader)",
    ],
)
def test_U12_a_forbidden_line_is_found(line):
    assert forbidden("seq2seq.data.text", ast.parse(line))


def test_U12_no_config_names_a_class():
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert len(files) > 15
    assert not [path for path in files if "_target_" in path.read_text(encoding="utf-8")]


UNPACKERS = {"extractall", "extract", "unpack_archive", "make_archive"}
UNPACKS_NOTHING = {"seq2seq.data.readers.test_sets", "scripts.groundhog"}
UNPACKS_NOTHING |= {"seq2seq.decoding.formats"}  # writes npz


def unpacking(tree: ast.AST) -> set[str]:
    """What a module spells of the ways to unpack."""
    writing = {id(n.func) for n in nodes(tree) if isinstance(n, ast.Call) and writes(n)}
    found = [n for n in nodes(tree) if isinstance(n, ast.Attribute) and id(n) not in writing]
    attributes, spelt = {n.attr for n in found}, {dotted(n) for n in found}
    opened = {"tarfile.open", "tarfile.TarFile", "zipfile.ZipFile", "zipfile.Path"} & spelt
    return (attributes & UNPACKERS) | opened


def writes(call: ast.Call) -> bool:
    return [ast.unparse(argument) for argument in call.args[1:]] == ["'w'"]


def test_U11_no_module_unpacks():
    for name, tree in modules().items():
        assert not unpacking(tree), name
        if any(within(found, "tarfile", "zipfile") for found in imports(tree)):
            assert name in UNPACKS_NOTHING


@pytest.mark.parametrize(
    "line", ["tarfile.open(p).extractall(q)", "shutil.unpack_archive(p)", "zipfile.ZipFile(p)"]
)
def test_U11_unpacking_is_noticed(line):
    assert unpacking(ast.parse(line))


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
    assert record.getMessage().startswith("runs on the reference code in part: import of seq2seq.")
    batch = random_batch(1)
    losses = []
    for _ in range(2):
        loss = batch_loss(model, batch).objective(Normalize.words)
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        with torch.no_grad():  # by hand: torch.optim takes seconds to import
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter -= 0.01 * gradient
    assert losses[1] < losses[0]
    with torch.inference_mode():
        searcher = model.for_search()
        state = searcher.begin(batch.src, batch.src_mask)
        y = torch.full((batch.num_sentences,), PAD)
        for _ in range(2):
            prediction, state = searcher.step(y, state)
            log_probs = prediction.log_probs()
            y = log_probs.argmax(dim=-1)
    assert log_probs.shape == (batch.num_sentences, VOCAB)


# Words ------------------------------------------------------------------------------------------

NEVER = r"forth|(Unit|Look)(Forth|Back)|Looked|Kept|narrow"
NEVER += r"|formats? of (the )?factors|[Nn]umber formats?"
NEVER += r"|NoRoom|memory does not suffice|sentences do not know of each other|no run of ours"
NEVER += r"|something a user can put right|turned round|in two factors|the account of it"
NEVER += r"|([Nn]ats|[Tt]okens) a (token|second)"
NOT_WORDS = re.compile(rf"\b({NEVER})\b")
ALLOWED = "a narrow umask"
TEXTS = [*SOURCES, *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]
TEXTS += [p for p in (ROOT / "seq2seq").rglob("*") if p.suffix in (".c", ".h", ".js", ".css")]


def test_no_word_of_the_old_private_language():
    texts = {p: p.read_text("utf-8") for p in TEXTS if p.name != "CHANGELOG.md"}  # older names
    found = {p: NOT_WORDS.findall(text.replace(ALLOWED, "")) for p, text in texts.items()}
    assert not {p: words for p, words in found.items() if words}


# Pages ------------------------------------------------------------------------------------------


def test_every_page_is_reached_from_the_first_or_from_the_menu():
    docs = ROOT / "docs"
    menu = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.M)
    waiting, reached = [docs / "index.md", *(docs / page for page in menu)], set()
    while waiting:
        page = waiting.pop().resolve()
        if page not in reached:
            reached.add(page)
            links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text("utf-8"))
            waiting += [page.parent / link for link in links if "://" not in link]
    assert set(docs.rglob("*.md")) - reached == set()


# Nothing is patched onto modules ----------------------------------------------------------------


def test_the_package_root_holds_no_module_of_its_own():
    assert {path.name for path in (ROOT / "seq2seq").glob("*.py")} <= {"__init__.py", "__main__.py"}


def methods_of_modules() -> set[str]:
    """Names of the methods of every class of ours that is an nn.Module, and `forward`."""
    classes = [n for tree in modules().values() for n in nodes(tree) if isinstance(n, ast.ClassDef)]
    kinds = {"nn.Module", "nn.Linear"}
    names = {"forward"}
    for _ in range(3):  # subclasses of subclasses
        for cls in classes:
            if any(ast.unparse(base) in kinds for base in cls.bases):
                kinds.add(cls.name)
                names |= {node.name for node in cls.body if isinstance(node, ast.FunctionDef)}
    return names


def patches(tree: ast.AST, methods: set[str]) -> list[str]:
    """Assignments to such a name on anything but `self`."""
    targets = [
        target
        for node in nodes(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return [
        ast.unparse(target)
        for target in targets
        if isinstance(target, ast.Attribute)
        and target.attr in methods
        and ast.unparse(target.value) != "self"
    ]


def test_nothing_is_patched_onto_a_module():
    methods = methods_of_modules()
    assert {"follow", "step", "readout", "initialize"} <= methods
    assert not [found for tree in modules().values() for found in patches(tree, methods)]
    assert patches(ast.parse("layer.forward = partial(f, layer)"), methods) == ["layer.forward"]
