"""docs/errors.md: made from the source, up to date, and what the program really prints."""

import re

import pytest
from runs import ROOT, module_of

from seq2seq.run import errors
from seq2seq.run.signals import EXIT_CODES

document = module_of("document_errors")
PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")


def messages(text: str) -> list[tuple[int, str, str]]:
    """What the page says about one module."""
    found = document.Sources({"seq2seq.x": text}).messages()
    return sorted((message.code, message.text, message.fix) for message in found)


def test_the_page_is_made_from_the_source():
    assert document.page() == PAGE, "run: python scripts/document_errors.py"


def test_every_exit_code_is_there():
    kinds = errors.UserError.__subclasses__()
    codes = {0} | {kind.exit_code for kind in kinds} | {*EXIT_CODES.values()}
    listed = re.findall(r"^\| (\d+) \| (?:`\w+`)? \| .+ \|$", PAGE.split("## Messages")[0], re.M)
    assert set(map(int, listed)) == codes == {0, 1, 2, 3, 4, 5, 6, 7, 8, 70, 75, 130, 143}


def test_every_module_that_makes_an_error_is_there():
    """By a plain search: no module is overlooked, no class either."""
    for path in [ROOT / "train.py", *(ROOT / "seq2seq").rglob("*.py")]:
        made = re.findall(r"(?:raise|return|print_error\()\s*(\w+)Error\(", path.read_text("utf-8"))
        kinds = [kind for kind in made if hasattr(errors, f"{kind}Error") and kind != "Internal"]
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removeprefix("seq2seq.")
        name = name.removesuffix(".__init__")
        for kind in kinds:
            error = getattr(errors, f"{kind}Error")
            label = r"[\w, ]+" if document._varies(error) else error.exit_code
            assert re.search(rf"^\| {label} \| .* \| {re.escape(name)} \|$", PAGE, re.M), (
                name,
                kind,
            )


@pytest.mark.parametrize(
    "line",
    [
        "config: unknown key 'model.hiden_size'. Did you mean 'model.hidden_size'?",
        "config: trainer.clip_norm=0.0 is out of range. Use (0, inf).",
        "old: already holds a run. Continue it with resume=old, or name another.",
        "none.tsv: no such file. Check the name and data.root.",
        "outputs/x: loss is nan at update 412",
    ],
)
def test_what_the_program_prints_is_in_the_table(line):
    texts = re.findall(r"^\| [\d, ]+ \| `(.+?)` \|", PAGE, re.M)
    assert len(texts) > 100
    patterns = [re.sub("<[^<>]*>", ".+", re.escape(text)) for text in texts]
    assert any(re.match(pattern, line) for pattern in patterns)


# How sources are read


def test_holes_and_alternatives():
    text = """
def f(path, x, ok):
    fix = "Do this." if ok else "Do that."
    raise DataError(f"{path}:{x + 1}", f"{x!r} of {len(path)} {', '.join(map(str, path))}", fix)
"""
    assert messages(text) == [
        (3, "<path>:<x>: '<x>' of <number of path> <path>", "Do this. / Do that.")
    ]


def test_a_variable_is_what_it_was_set_to_last():
    text = """
def f(path):
    what = "one"
    try:
        pass
    except OSError:
        what = "two"
        raise PlatformError(path, what, "A.")
    except ValueError:
        raise DataError(path, what, "B.")
    if path:
        what = "three"
    raise RunDirError(path, what, "C.")
"""
    assert messages(text) == [
        (3, "<path>: one", "B."),
        (4, "<path>: one", "C."),
        (4, "<path>: three", "C."),
        (4, "<path>: two", "C."),
        (5, "<path>: two", "A."),
    ]


def test_words_handed_to_a_function_are_those_of_its_callers():
    text = """
FIX = "Restore it."
def damaged(path, what):
    return RunDirError(path, what, FIX)
def f(folder, log):
    log.damaged(folder, "not this")
    raise damaged(folder / "a", f"no {folder.name}")
def g(name):
    raise damaged("b", what=reason(name))
def reason(name):
    return "gone" if name else "cut"
"""
    assert messages(text) == [
        (4, "<folder>: no <folder>", "Restore it."),
        (4, "b: cut", "Restore it."),
        (4, "b: gone", "Restore it."),
    ]


def test_a_class_that_words_its_message_itself():
    text = """
class TooLargeError(DataError):
    def __init__(self, asked):
        super().__init__("config", f"{asked} is too large", "Lower it.")
def f():
    raise TooLargeError(3)
"""
    assert messages(text) == [(3, "config: <asked> is too large", "Lower it.")]


def test_a_constant_of_anothermodule_of():
    texts = {
        "seq2seq.a": "ADVICE = 'Lower it.'",
        "seq2seq.b": "def f(path):\n    raise MemoryLimitError(path, 'out of memory', ADVICE)",
    }
    [message] = document.Sources(texts).messages()
    assert (message.text, message.fix) == ("<path>: out of memory", "Lower it.")


def test_texts_out_of_a_dictionary():
    text = """
def f(path, error):
    fixes = {1: "Free space.", 2: "Wait."}
    raise PlatformError(path, error.strerror or str(error), fixes.get(error.errno, "Look."))
"""
    assert messages(text) == [(5, "<path>: <strerror>", "Free space. / Wait. / Look.")]
