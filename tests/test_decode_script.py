"""scripts/decode.py and scripts/evaluate.py: streams, formats, exit codes.

What needs a real process (pipes, closed streams, the locale) is marked e2e; the rest calls the
script's `main` under the same `run_script` that a process runs.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from runs import ROOT, assert_fails, copy_of, environment, template_pairs
from strangers import forge

import seq2seq
from seq2seq.decoding import translate

pytestmark = pytest.mark.e2e

TEXT = (
    "the cat sees the dog .\n\n  \nthe élève likes the \U0001f43a today .\n\u00a0\n"
    "the boy\twaits for\u2028the\u0085bear\rhere .\nthe sailor hears the baker often .\n"
    "\u0627\u0644\u0642\u0637 </s>\nthe wolf follows the neighbour again ."
).encode()
NUM_LINES = 9  # the last one without a line end


@pytest.fixture(scope="module")
def expected(run) -> list[seq2seq.decoding.pretrained.Translation]:
    """What the library says of TEXT, split where `wc -l` splits it."""
    lines = TEXT.decode().split("\n")
    assert len(lines) == NUM_LINES
    return seq2seq.load(run).translate(lines)


def test_files_and_streams_give_the_same(run, expected, script, tmp_path):
    (tmp_path / "in.txt").write_bytes(TEXT)
    piped = script("decode", run, stdin=TEXT)
    assert piped.code == 0, piped
    assert piped.out.decode().split("\n") == [t.text for t in expected] + [""]
    lines = script("decode", run, "--format", "jsonl", stdin=TEXT).out.decode().split("\n")
    assert lines.pop() == ""
    model = seq2seq.load(run)
    more = [{"source": t.source.removesuffix("\r"), "flags": model.flags(t)} for t in expected]
    own = [t.as_dict() | own for t, own in zip(expected, more, strict=True)]
    assert [json.loads(line) for line in lines] == own
    filed = script("decode", run, "--input", tmp_path / "in.txt", "--output", tmp_path / "out.txt")
    assert (filed.code, filed.out) == (0, b"")
    assert (tmp_path / "out.txt").read_bytes() == piped.out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.txt", "out.txt"]


def test_n_best(run, script):
    args = (run, "--format", "nbest", "decode.beam_size=5", "decode.n_best=3")
    result = script("decode", *args, stdin=b"the cat sees the dog .\n\nthe boy .\n")
    blocks: dict[str, list[float]] = {}
    rows = result.out.decode().splitlines()
    for row in filter(None, rows):
        number, score, text = row.split("\t")
        blocks.setdefault(number, []).append(float(score))
        assert text
    assert list(blocks) == ["1", "3"], "numbers are those of the lines, blank ones counted"
    for scores in blocks.values():
        assert scores == sorted(scores, reverse=True)
        assert len(scores) == 3
    assert rows.count("") == 1


def test_n_best_lists_hold_a_text_once(run, script, monkeypatch):
    """Other cuts of a text are passed over, and the list goes on with what follows them.

    Texts are cut short here, so that many are equal.
    """
    make = translate._candidate

    def shortened(*args):
        found = make(*args)
        return replace(found, text=" ".join(found.text.split()[:4]))

    monkeypatch.setattr(translate, "_candidate", shortened)
    lines = "".join(f"{source}\n" for source, _ in template_pairs(10, seed=4)).encode()
    rules = ("decode.beam_size=12", "--format", "nbest")
    whole = lists(script("decode", run, *rules, "decode.n_best=12", stdin=lines))
    with monkeypatch.context() as patch:
        patch.setattr(translate, "_distinct", lambda found, count: tuple(found)[:count])
        repeated = lists(script("decode", run, *rules, "decode.n_best=12", stdin=lines))
    assert any(len({*texts}) < len(texts) for texts in repeated.values()), "or nothing is shown"
    assert whole == {number: [*dict.fromkeys(texts)] for number, texts in repeated.items()}
    for count in (2, 5):
        found = lists(script("decode", run, *rules, f"decode.n_best={count}", stdin=lines))
        assert found == {number: texts[:count] for number, texts in whole.items()}


def lists(result) -> dict[str, list[str]]:
    assert result.code == 0, result.err
    texts: dict[str, list[str]] = {}
    for row in result.out.decode().splitlines():
        number, _, text = row.split("\t")
        texts.setdefault(number, []).append(text)
    return texts


REPEATED = {
    "decode": ["--input", "--output", "--format", "--level", "--heatmaps", "--figure"],
    "score": ["--source", "--target", "--output", "--gold", "--reverse", "--json", "--symmetrise"],
    "evaluate": ["--source", "--hypotheses", "--tokenizer", "--language", "--by-length", "--json"],
    "report": ["--output", "--sentences"],
}


@pytest.mark.parametrize("name", REPEATED)
def test_an_option_that_stands_twice_is_refused(script, name, tmp_path):
    """Equal or not, joined by = or not, before and after the run; nothing is read before."""
    choices = {"--format": "jsonl", "--level": "words", "--figure": "png", "--sentences": "3"}
    for option in REPEATED[name]:
        value = choices.get(option, "union" if option == "--symmetrise" else "x")
        done = script(name, option, value, tmp_path, f"{option}={value}")
        assert_fails(done, 2, f"{option}: is given twice. Give it once.")


def test_several_references_are_for_given_translations(script, run):
    files = ["--source", "a", "--reference", "b", "--reference", "c"]
    assert_fails(script("evaluate", run, *files), 2, "--reference: is given several times")


@pytest.mark.parametrize(
    ("words", "fix"),
    [
        (["--exact"], "Leave it out: scores of RUN have them where they suit its task."),
        (["--language", "fr"], "Leave it out: RUN knows its languages."),
        (["--tokenizer", "char"], "Add evaluate.bleu_tokenizer=char."),
    ],
)
def test_what_is_for_files_is_refused_beside_a_run(run, script, words, fix):
    message = f"{words[0]}: is for --hypotheses. {fix}"
    assert_fails(script("evaluate", run, *words), 2, message)


@pytest.mark.parametrize("ending", [b"\n", b""])
def test_D4_invalid_utf8_is_named_by_its_line(run, script, ending):
    result = script("decode", run, stdin=b"the cat .\nthe dog .\ncaf\xe9 ." + ending)
    assert_fails(result, 3, "stdin:3: invalid UTF-8 byte 0xe9 at byte 4", "Latin-1")


def test_a_missing_input_or_run_and_a_wrong_override_are_named(run, script, tmp_path):
    none = tmp_path / "none"
    assert_fails(script("decode", run, "--input", none), 3, f"{none}: no such file")
    assert_fails(script("decode", none), 4, f"{none}: holds no run")
    untrained = copy_of(run, tmp_path / "untrained")
    shutil.rmtree(untrained / "checkpoints")
    assert_fails(script("decode", untrained), 4, "holds no checkpoint")
    assert_fails(script("decode", run, "decode.beam_sise=2"), 1, "Did you mean 'decode.beam_size'")
    refused = script("decode", run, "model.hidden_size=2")
    assert_fails(refused, 4, "model.hidden_size is 24 in this run, not 2")


def test_the_output_file_is_whole_or_absent(run, script, tmp_path):
    """The fault is in line 40, when two chunks of 16 lines have been written."""
    text = b"the cat .\n" * 39 + b"\xff\n"
    args = (run, "--output", tmp_path / "new/out.txt", "decode.batch_sentences=1")
    assert_fails(script("decode", *args, stdin=text), 3, "stdin:40")
    assert list((tmp_path / "new").iterdir()) == []
    (tmp_path / "new/out.txt").write_text("old")
    assert_fails(script("decode", *args, stdin=text), 3, "stdin:40")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["out.txt"]
    assert (tmp_path / "new/out.txt").read_text() == "old"


def test_a_pipe_given_as_output_stays_a_pipe(run, script, tmp_path):
    """And so does /dev/null, which root could otherwise replace by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        assert script("decode", run, "--output", pipe, stdin=b"\n\n").code == 0
        assert os.read(reader, 100) == b"\n\n"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


# evaluate.py


def test_the_scores_of_the_test_set_are_those_of_the_run(run, script, tmp_path):
    result = script("evaluate", run, "--json", tmp_path / "scores.json")
    assert result.code == 0, result
    saved = json.loads((run / "scores.json").read_text())
    assert json.loads((tmp_path / "scores.json").read_text()) == saved
    assert saved["sentences"] == 20
    assert 50 < saved["scores"]["BLEU"]["value"] < 99
    for name, score in saved["scores"].items():
        [row] = [r for r in result.out.decode().splitlines() if r.startswith(f"{name}  ")]
        interval = f"{score['low']:.2f}-{score['high']:.2f}"
        assert row.split()[-3:] == [f"{score['value']:.2f}", interval, score["signature"]]
        assert "version:" in score["signature"]


def test_files_are_scored_alike(run, script, tmp_path):
    """The run's own output against its own references, once translated anew and once read."""
    sides = [run / f"corpus/test.{side}" for side in ("source", "target")]
    own = script("evaluate", run)
    given = script("evaluate", run, "--source", sides[0], "--reference", sides[1])
    files = ("--hypotheses", run / "decode/test.txt", "--reference", sides[1])
    read = script("evaluate", *files, "--language", "fr")
    assert own.code == given.code == read.code == 0
    assert own.out == given.out
    *table, no_unknown, unseen, flags = own.out.splitlines()
    assert table == read.out.splitlines()
    assert no_unknown == b"No UNK     no sentence has an unknown word, so the scores are the same"
    assert unseen == b"Unseen     no sentence is in the training data, so the scores are the same"
    assert flags.startswith(b"Flags      ")
    plain = script("evaluate", *files).out.splitlines()
    assert [row.split()[0] for row in plain] == [b"metric", b"BLEU", b"chrF", b"TER"]
    exact = script("evaluate", *files, "--exact").out.splitlines()
    assert [row.split()[0] for row in exact[:4]] == [b"metric", b"exact", b"character", b"symbol"]
    assert exact[4].split()[0] == b"BLEU"
    short = script("evaluate", run, "decode.max_ratio=0.2", "decode.extra_steps=0")
    assert short.code == 0
    assert short.out != own.out, "an override should reach the search"


def test_lengths_of_several_runs_are_one_table_and_one_plot(run, script, tmp_path):
    other = copy_of(run, tmp_path / "other")
    config = (other / "config.yaml").read_text("utf-8")
    (other / "config.yaml").write_text(config.replace("seed: 1\n", "seed: 2\n", 1), "utf-8")
    forge(other)
    args = ("--by-length", tmp_path / "plot.png", "--json", tmp_path / "bins.json")
    result = script("evaluate", run, other, *args)
    assert result.code == 0, result
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    rows = result.out.decode().splitlines()
    assert rows[0].split() == ["words", "seed=1", "seed=2"]
    own = json.loads((run / "length_bleu.json").read_text())
    assert json.loads((tmp_path / "bins.json").read_text()) == {"seed=1": own, "seed=2": own}
    assert rows[1].count(f"{own['bins'][0]['bleu']:.1f} (") == 2


HYP, REF = b"the cat sees the dog\n" * 9, b"the cat sees the dog\n" * 10


@pytest.mark.parametrize(
    ("hypotheses", "reference", "parts"),
    [
        (HYP, REF, ["hyp.txt has 9 lines, ref.txt has 10"]),
        (b"", REF, ["hyp.txt has 0 lines, ref.txt has 10"]),
        (b"", b"", ["no sentences"]),
        (HYP, None, ["ref.txt: no such file"]),
        (None, REF, ["hyp.txt: no such file"]),
        (REF, b"a\n" + b"caf\xe9\n" * 9, ["ref.txt:2: invalid UTF-8 byte 0xe9 at byte 4"]),
        (b"a\0b\n" * 10, REF, ["hyp.txt:1: NUL at byte 2"]),
    ],
    ids=["-1", "empty", "both empty", "no reference", "none", "bytes", "NUL"],
)  # fmt: skip
def test_V1_files_that_cannot_be_scored(script, tmp_path, hypotheses, reference, parts):
    names = ("hyp.txt", "ref.txt")
    for name, data in zip(names, (hypotheses, reference), strict=True):
        if data is not None:
            (tmp_path / name).write_bytes(data)
    args = ("--hypotheses", tmp_path / "hyp.txt", "--reference", tmp_path / "ref.txt")
    assert_fails(script("evaluate", *args), 3, *parts)


@pytest.mark.e2e
@pytest.mark.parametrize("view", [[], ["--by-length", "lengths.png"]], ids=["scores", "lengths"])
def test_an_empty_text_has_no_scores(run, script, tmp_path, view):
    (tmp_path / "empty").write_bytes(b"")
    args = ("--source", tmp_path / "empty", "--reference", tmp_path / "empty", *view)
    assert_fails(script("evaluate", run, *args), 3, "scoring: no sentences. Give at least one.")


def numbers(result) -> dict[str, str]:
    assert result.code == 0, result
    return {row.split()[0]: row.split()[1] for row in result.out.decode().splitlines()}


@pytest.mark.parametrize(
    "hypotheses",
    [
        REF[:-1],
        REF.replace(b"\n", b"\r\n"),
        b"\xef\xbb\xbf" + REF,
        *(REF.replace(b"cat sees", f"cat{c}sees".encode()) for c in "\r\u2028\x85\x0b"),
    ],
    ids=["no end", "CRLF", "mark", "CR", "U+2028", "U+0085", "VT"],
)
def test_V1_V4_what_ends_a_line_and_what_does_not(script, tmp_path, hypotheses):
    (tmp_path / "hyp.txt").write_bytes(hypotheses)
    (tmp_path / "ref.txt").write_bytes(REF)
    args = ("--hypotheses", tmp_path / "hyp.txt", "--reference", tmp_path / "ref.txt")
    found = numbers(script("evaluate", *args))
    assert found["BLEU"] == "100.00"
    assert found["TER"] == "0.00"
    swapped = (args[0], args[3], args[2], args[1])
    assert numbers(script("evaluate", *swapped))["BLEU"] == "100.00"


def test_V3_scores_are_the_same_bytes_every_time(run, script, tmp_path):
    for command in ([run], [run, "--by-length", tmp_path / "lengths.png"]):
        seen = []
        for name in ("first.json", "second.json"):
            result = script("evaluate", *command, "--json", tmp_path / name)
            assert result.code == 0, result
            pictures = [path.read_bytes() for path in tmp_path.glob("*.png")]
            seen.append((result.out, (tmp_path / name).read_bytes(), pictures))
        assert seen[0] == seen[1]


@pytest.mark.parametrize(
    "args",
    [(), ("--hypotheses", "a"), ("RUN", "--source", "a"), ("--attention",), ("a=b",)],
    ids=" ".join,
)
def test_arguments_that_make_no_sense(script, args):
    assert_fails(script("evaluate", *args), 2)


# Real processes.


@pytest.mark.parametrize(
    ("redirect", "message"),
    [
        ("> /dev/full", "error: stdout: No space left on device."),
        (">&-", "error: stdout: is closed."),
        ("<&-", "error: stdin: is closed. Pipe text in, or use --input FILE."),
    ],
)
def test_D7_D8_a_stream_that_is_lost(run, tmp_path, redirect, message):
    command = f"exec {sys.executable} {ROOT}/scripts/decode.py {run} --format jsonl {redirect}"
    result = subprocess.run(
        ["bash", "-c", command], input=b"the cat waits for the dog again .\n" * 200,
        capture_output=True, cwd=tmp_path, env=environment(), timeout=120, check=False,
    )  # fmt: skip
    code = {">": 5, "<": 3}[redirect[0]]
    assert result.returncode == code, result.stderr
    assert result.stderr.decode().startswith(message)
    assert result.stderr.count(b"\n") == 1, result.stderr.decode()
