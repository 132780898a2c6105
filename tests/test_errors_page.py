"""docs/errors.md: made from the source, up to date, and what the program really prints."""

import re

import pytest
from runs import ROOT, module_of

from seq2seq.run import errors
from seq2seq.run.signals import EXIT_CODES

document = module_of("document_errors")
PAGE = (ROOT / "docs" / "errors.md").read_text("utf-8")


@pytest.mark.e2e
def test_the_page_is_made_from_the_source():
    assert document.page() == PAGE, "run: python scripts/document_errors.py"


def test_every_exit_code_is_there():
    kinds = errors.UserError.__subclasses__()
    codes = {0} | {kind.exit_code for kind in kinds} | {*EXIT_CODES.values()}
    listed = re.findall(r"^\| (\d+) +\| (?:`\w+`)? *\| .+ \|$", PAGE.split("## Messages")[0], re.M)
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
            label = document.LABELS.get(f"{kind}Error", error.exit_code)
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
