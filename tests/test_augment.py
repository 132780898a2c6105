"""Pairs from models: what a loop over `translate` gives, in the same bytes however often killed."""

import gzip
import itertools
import json
import math
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from faults import Operations, in_child, kill_at, killed
from runs import assert_fails, composed, run_new, template_pairs
from test_draws import bits, oracle_key

import seq2seq
from seq2seq.config.schema import Stage
from seq2seq.decoding import augment as module
from seq2seq.decoding.augment import BLANK, AugmentRules, augment, noisy
from seq2seq.decoding.translate import translate
from seq2seq.model.draws import fold, stream
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import UserError

# Noise ------------------------------------------------------------------------------------------


def noise_by_hand(text: str, key: int, drop=0.0, blank=0.0, swap=0) -> str:
    words = text.split()
    draws = iter((bits(key, 4 * len(words)) >> 11).astype(float) / 2**53)
    left = [word for word in words if not next(draws) < drop]
    if not left:
        left = [words[math.floor(next(draws) * len(words))]]
    left = ["<BLANK>" if next(draws) < blank else word for word in left]
    places = {i: i + (swap + 1) * next(draws) for i in range(len(left))}
    return " ".join(left[i] for i in sorted(places, key=places.get))


@pytest.mark.parametrize(
    "noise", [{"drop": 0.2, "blank": 0.3, "swap": 2}, {"drop": 1.0}, {"swap": 3}, {"blank": 0.5}]
)
def test_noise_is_that_of_its_paper(noise):
    for number in range(30):
        text = " ".join(f"w{i}" for i in range(1 + number % 17))
        own = noisy(text, AugmentRules(**noise), stream(fold(3, number)), "en")
        assert own == noise_by_hand(text, oracle_key(3, number), **noise)


def test_noise_has_its_shares_and_moves_no_word_further_than_it_may():
    text = " ".join(map(str, range(20_000)))
    found = noisy(text, AugmentRules(drop=0.1, blank=0.1), stream(1), "en").split()
    assert len(found) == pytest.approx(18_000, abs=200)
    assert found.count(BLANK) == pytest.approx(1_800, abs=150)
    places = [*map(int, noisy(text, AugmentRules(swap=3), stream(2), "en").split())]
    assert sorted(places) == [*range(20_000)]
    assert max(abs(i - place) for i, place in enumerate(places)) == 3


def test_without_spaces_characters_are_moved():
    text = "\u732b\u5728\u5bb6\u91cc\u7761\u89c9\u3002"
    found = noisy(text, AugmentRules(swap=2), stream(4), "zh")
    assert found != text
    assert sorted(found) == sorted(text)


# Pairs ------------------------------------------------------------------------------------------

LINES = [
    *(source for source, _ in template_pairs(5, seed=9)),
    "",
    "the cat",
    "ce chat voit .",
    "the cat",
    "\u200b",
    "the cat " * 9,
    "the \u732b sees the dog .",
]
SAMPLES = ["decode.sample=true", "decode.temperature=1.5", "decode.seed=7"]


def load(run, *changes: str):
    rules = ["decode.beam_size=2", "decode.max_source_tokens=12", "decode.n_best=1"]
    return seq2seq.load(run, ["device=cpu", *rules, *changes])


@pytest.fixture(scope="module")
def model(run):
    return load(run)


@pytest.fixture
def text(tmp_path) -> Path:
    path = tmp_path / "mono.en.gz"
    path.write_bytes(gzip.compress("".join(f"{line}\n" for line in LINES).encode()))
    return path


def pairs_in(directory: Path) -> list[tuple[str, ...]]:
    sides = ((directory / f"pairs.{side}").read_text("utf-8") for side in ("source", "target"))
    return list(zip(*(side.split("\n")[:-1] for side in sides), strict=True))


def reason_by_hand(t, before, max_overlap=1.0, max_perplexity=math.inf, max_ratio=99.0) -> str:
    """Words of this corpus stand between spaces."""
    own, words = t.source.split(), t.text.split()
    if not t.source.strip("\u200b"):
        return "blank"
    if t.source in before:
        return "duplicate"
    best = t.candidates[0]
    for reason, holds in {
        "long": len(t.source_tokens) > 12,
        "unfinished": best.tokens[-1] != "</s>",
        "copy": own == words
        or sum(min(words.count(w), own.count(w)) for w in {*words}) / len(words) > max_overlap,
        "perplexity": math.exp(-sum(best.token_log_probs) / len(best.tokens)) > max_perplexity,
        "ratio": max(len(own), len(words)) / min(len(own), len(words)) > max_ratio,
    }.items():
        if holds:
            return reason
    return "written"


@pytest.mark.e2e
@pytest.mark.parametrize(
    ("changes", "limits", "reasons"),
    [
        ([], {}, {"blank", "duplicate", "long", "written"}),
        (SAMPLES, {}, {"blank", "duplicate", "long", "written"}),
        ([], {"max_perplexity": 1.1}, {"perplexity", "written"}),
        ([], {"max_ratio": 2.0}, {"ratio", "written"}),
        ([], {"max_overlap": 0.0}, {"copy"}),
        (["decode.max_ratio=0.5", "decode.extra_steps=1"], {}, {"unfinished"}),
        (["decode.beam_size=4", "decode.n_best=4", "decode.mbr=chrf"], {}, {"written"}),
    ],
)
def test_it_is_a_loop_over_translations(run, text, tmp_path, changes, limits, reasons, monkeypatch):
    """In whole or in blocks, every line counted once, by the first reason that holds."""
    model = load(run, *changes)
    found = model.translate(LINES)
    every = [reason_by_hand(t, LINES[:i], **limits) for i, t in enumerate(found)]
    assert reasons <= {*every}, "or the case shows nothing"
    pairs = [(t.text, t.source) for t, why in zip(found, every, strict=True) if why == "written"]
    for block in (100, 5):
        monkeypatch.setattr(module, "BLOCK", block)
        report = augment(model, text, tmp_path / str(block), AugmentRules(**limits))
        assert pairs_in(tmp_path / str(block)) == pairs
        counts = report.dropped | {"written": report.written}
        assert Counter(every) == Counter({k: v for k, v in counts.items() if v})
        assert report.read == len(LINES)
        assert [n for n, *_ in report.examples["duplicate"]] == [9]


@pytest.mark.e2e
def test_noise_and_tags_are_for_sources_and_leave_out_nothing(run, model, text, tmp_path):
    noise = {"drop": 0.2, "blank": 0.3, "swap": 2}
    for side in ("source", "target"):
        plain = AugmentRules(synthetic=side)
        augment(model, text, tmp_path / f"{side}-plain", plain)
        augment(model, text, tmp_path / side, replace(plain, tag="<BT>", **noise))
        numbers = [1, 2, 3, 4, 5, 7, 12]
        for number, old, new in zip(
            numbers, pairs_in(tmp_path / f"{side}-plain"), pairs_in(tmp_path / side), strict=True
        ):
            key = oracle_key(model.config.decode.seed, number)
            assert new == (f"<BT> {noise_by_hand(old[0], key, **noise)}", old[1])
            assert LINES[number - 1] == old[side == "source"]
    augment(model, text, tmp_path / "all", AugmentRules(keep_duplicates=True))
    assert [target for _, target in pairs_in(tmp_path / "all")].count("the cat") == 2


@pytest.mark.e2e
def test_a_copy_is_no_translation(model, text, tmp_path, monkeypatch):
    def copied(*args, **options):
        for t in translate(*args, **options):
            yield replace(t, candidates=tuple(replace(c, text=t.source) for c in t.candidates))

    monkeypatch.setattr(module, "translate", copied)
    report = augment(model, text, tmp_path / "bt")
    assert (report.written, report.dropped["copy"]) == (0, 7)


# Killed and continued ---------------------------------------------------------------------------


def bytes_of(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.mark.e2e
@pytest.mark.parametrize("half", [False, True])
def test_killed_at_any_operation_it_ends_with_the_same_bytes(
    run, text, tmp_path, half, monkeypatch
):
    monkeypatch.setattr(module, "BLOCK", 4)
    model, rules = load(run, *SAMPLES), AugmentRules(tag="<BT>", swap=2)
    augment(model, text, tmp_path / "whole", rules)
    expected, died = bytes_of(tmp_path / "whole"), 0
    for number in itertools.count(1, 3):
        output = tmp_path / f"killed-{number}"

        def work(_say, number=number, output=output):
            with Operations(kill_at(number, half=half)):
                augment(model, text, output, rules)

        status, said = in_child(work)
        if not killed(status):
            assert said == []
            break
        died += 1
        again = load(run, *SAMPLES, "decode.batch_sentences=1") if number == 40 else model
        augment(again, text, output, rules)
        assert bytes_of(output) == expected, f"killed at {number}"
        assert [*tmp_path.glob("*.part")] == []
    assert died > 15


@pytest.mark.e2e
def test_what_does_not_go_on_is_one_line(run, model, text, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    output, part = tmp_path / "bt", tmp_path / "bt.part"

    def fails(code: int, message: str, loaded=model, path=text, **rules) -> None:
        with pytest.raises(UserError) as caught:
            augment(loaded, path, output, AugmentRules(**rules))
        assert caught.value.exit_code == code
        assert str(caught.value).startswith(message)

    # Half of it is done, and everything that pairs depend on stays.
    def work(_say):
        with Operations(kill_at(30)):
            augment(model, text, output)

    assert killed(in_child(work)[0])
    assert json.loads((part / "report.json").read_text())["read"] in (4, 8)
    other = tmp_path / "other" / text.name
    other.parent.mkdir()
    other.write_bytes(gzip.compress(b"the cat\n"))
    change = "Name a new directory, or delete this one."
    for directory in (part, output):
        was = f"{directory}: was written with"
        fails(2, f"{was} decode.seed=1, and now it is 2. {change}", load(run, "decode.seed=2"))
        fails(2, f"{was} rules.tag=, and now it is <BT>. {change}", tag="<BT>")
        fails(2, f"{was} model.sha256=", load(f"{run}@update-120"))
        fails(2, f"{was} text.lines=12, and now it is 1. {change}", path=other)
        if directory is part:
            damaged = bytes_of(part)
            (part / "pairs.source").write_bytes(damaged["pairs.source"][:9])
            size = len(damaged["pairs.target"]) and json.loads(damaged["report.json"])["sizes"][0]
            fix = f"Delete {part} and start again."
            fails(4, f"{part}/pairs.source: is 9 bytes, expected {size}. {fix}")
            (part / "pairs.source").write_bytes(damaged["pairs.source"])
            augment(model, text, output)
    assert augment(model, text, output).written == len(pairs_in(output))
    (output / "report.json").unlink()
    fails(2, f"{output}: exists, but has no report.json. Name a new directory.")


@pytest.mark.e2e
def test_one_process_at_a_time(model, text, tmp_path):
    part = RunDir(tmp_path / "bt.part")
    part.root.mkdir()

    def work(say):
        with pytest.raises(UserError, match=f"bt.part: in use by pid {os.getppid()}"):
            augment(model, text, tmp_path / "bt")
        say("refused")

    part.lock()
    assert in_child(work)[1] == ["refused"]
    part.unlock()


# The command, and training ----------------------------------------------------------------------


@pytest.mark.e2e
def test_the_command_and_what_training_says_of_its_pairs(run, script, tmp_path):
    lines = [source for source, _ in template_pairs(300)]
    (tmp_path / "mono.en").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    args = ("--input", tmp_path / "mono.en", "--output", tmp_path / "bt", "decode.beam_size=1")
    args += ("decode.n_best=1",)
    name = f"{run}+{run}@last"
    for _ in range(2):  # the second time all is there
        made = script("augment", name, *args, "--synthetic", "target", "--max-perplexity", "1.1")
        assert made.code == 0, made
        assert made.out.decode().startswith("300 lines read, ")
    own = script("decode", name, *args[:2], *args[4:])
    translations = dict(zip(lines, own.out.decode().splitlines(), strict=True))
    pairs = pairs_in(tmp_path / "bt")
    assert 100 < len(pairs) < 300
    assert all(translations[source] == target for source, target in pairs)

    # A corpus like any other, whose data report says what made it.
    files = ["pairs.source", "pairs.target"]
    changes = [f"data.root={tmp_path / 'bt'}", "tokenizer.vocab_size=100"]
    changes += [f"data.{s}=[{','.join(files)}]" for s in ("train", "validation", "test")]
    cfg = composed("debug", changes)
    cfg.stages = [Stage.tokenize]
    new = run_new(tmp_path / "new", cfg)
    report = json.loads((tmp_path / "bt/report.json").read_text())
    found = json.loads(new.path("data_report.json").read_text())["train"]["inputs"]
    for file in found:
        assert file["origin"] == {k: report[k] for k in ("settings", "read", "written", "dropped")}
        assert file["origin"]["settings"]["text.name"] == "mono.en"
    (tmp_path / "bt/pairs.source").write_text("".join(f"{s} .\n" for s, _ in pairs), "utf-8")
    changed = run_new(tmp_path / "changed", cfg)
    found = json.loads(changed.path("data_report.json").read_text())["train"]["inputs"]
    assert [file["origin"] is None for file in found] == [True, False]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--drop", "1.5"], 2, "--drop: 1.5 is out of range. Give 0 to 1."),
        (["--max-ratio", "nan"], 2, "--max-ratio: nan is out of range. Give 1 to inf."),
        (["--swap", "-1"], 2, "--swap: -1 is out of range. Give 0 to 1000."),
        (["--tag", "a\nb"], 2, "--tag: has several lines. Give one word."),
        ([], 3, "none.en: no such file."),
    ],
)
@pytest.mark.e2e
def test_wrong_arguments_are_one_line(run, script, tmp_path, options, code, message):
    args = ("--input", tmp_path / "none.en", "--output", tmp_path / "bt")
    assert_fails(script("augment", run, *args, *options), code, message)
    assert [*tmp_path.iterdir()] == []
