"""Statistical aligners on the text of a run, and programs in place of fast_align and eflomal."""

import unicodedata

import pytest
from runs import composed

from seq2seq.alignment import ibm
from seq2seq.data.words import blank_spans
from seq2seq.evaluation import aligners
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import DataError, PlatformError

PAIRS = [
    ("The cat ||| sees", "ce chat"),
    ("", ""),
    ("Seen in training .", "vu à côté ."),
    ("a", "b c"),
]
# Of the training pairs of the run, one is among those to be aligned, one has an empty side.
TRAINING = [
    ("the dog sees", "ce chien voit"),
    PAIRS[2],
    ("the cat", "chat"),
    ("x", ""),
    ("the", "ce"),
]

DIAGONAL = r"""
awk -F ' [|][|][|] ' '{
    n = split($1, source, " "); m = split($2, target, " "); line = ""
    for (i = 0; i < n && i < m; i++) line = line i "-" i " "
    print line
}' "$2" """
FIRST = r"""sed 's/.*/0-0/' "$2" """
FAST_ALIGN = f'case "$*" in *-r) {FIRST} ;; *-v) {DIAGONAL} ;; esac'
EFLOMAL = f'{DIAGONAL} > "$4"; {FIRST} > "$6"; cp "$2" "${{0%/*}}/seen"'


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Write a shell script that is found in PATH by a name."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(aligners.sysconfig, "get_path", lambda _: "/nowhere")

    def write(name, script):
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)

    return write


@pytest.fixture
def aligned(tmp_path):
    corpus = tmp_path / "run/corpus"
    corpus.mkdir(parents=True)
    for side, name in enumerate(("source", "target")):
        (corpus / f"train.{name}").write_text(
            "".join(f"{pair[side]}\n" for pair in TRAINING), "utf-8"
        )

    def align():
        # Marks apart from their letters, as in the text of some systems.
        pairs = [tuple(unicodedata.normalize("NFD", text) for text in pair) for pair in PAIRS]
        run = RunDir(tmp_path / "run")
        return aligners.align(run, composed("debug"), ("en", "fr"), pairs, blank_spans)

    return align


def numbers(side, pairs):
    known = {}
    return [[known.setdefault(w, len(known) + 1) for w in p[side].lower().split()] for p in pairs]


def test_ours_see_the_pairs_and_the_rest_of_the_training_text(aligned, program, caplog):
    found = aligned()
    assert found.trained_on == 4
    text = [*PAIRS, TRAINING[0], *TRAINING[2:]]
    sides = [numbers(side, text) for side in range(2)]
    forward, backward = ibm.align(*sides), ibm.align(*sides[::-1])
    for name in ("IBM-1", "HMM"):
        assert found.links[name][0] == forward[name][:4]
        swapped = [tuple((i, j) for j, i in links) for links in backward[name][:4]]
        assert found.links[name][1] == swapped
    said = [record.getMessage() for record in caplog.records]
    assert said == [f"{name} is not installed: left out" for name in ("fast_align", "eflomal")]


def test_programs_get_numbers_and_give_links_of_both_directions(aligned, program, tmp_path):
    program("fast_align", FAST_ALIGN)
    program("eflomal-align", EFLOMAL)
    found = aligned().links
    assert [*found] == ["IBM-1", "HMM", "fast_align", "eflomal"]
    diagonal = [((0, 0), (1, 1)), (), ((0, 0), (1, 1), (2, 2), (3, 3)), ((0, 0),)]
    first = [((0, 0),), (), ((0, 0),), ((0, 0),)]
    assert found["fast_align"] == found["eflomal"] == (diagonal, first)
    lines = (tmp_path / "seen").read_text().splitlines()
    assert lines[0] == "1 2 3 4 ||| 1 2"
    assert lines[3:] == ["1 10 4 ||| 1 9 10", "1 2 ||| 2", "1 ||| 1"]


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ("echo no memory >&2; exit 3", PlatformError, "failed with exit code 3: no memory. Repair"),
        ("exit 1", PlatformError, "failed with exit code 1: without a message. Repair it, or"),
        ("echo 0-0", DataError, "wrote 1 lines for 6 pairs. Repair it, or remove it from PATH."),
        ("yes 0:0 | head -6", DataError, "wrote '0:0', which is not a valid link. Repair it, or"),
    ],
)
def test_a_program_that_fails_is_named(aligned, program, tmp_path, script, error, message):
    program("fast_align", script)
    with pytest.raises(error) as caught:
        aligned()
    assert str(caught.value).startswith(f"{tmp_path}/fast_align: {message}")


def test_a_large_corpus_is_cut(aligned, program, monkeypatch, caplog):
    monkeypatch.setattr(aligners, "MAX_CELLS", 36)
    assert aligned().trained_on == 1
    assert "trained on the first 5 pairs only" in caplog.text
    monkeypatch.setattr(aligners, "MAX_CELLS", 0)
    found = aligned()
    assert (found.trained_on, len(found.links["HMM"][0])) == (0, 4)
