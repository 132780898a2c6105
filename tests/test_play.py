"""`seq2seq play`: its answers are those of `decode`, and it stands what strangers send."""

import asyncio
import contextlib
import json
import math
import random
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import FAMILY, tiny_model, tiny_transformer
from runs import ROOT, environment, template_pairs
from test_play_engine import Held
from test_report import HARMFUL

import seq2seq
from seq2seq.data.prepare import SIDES, load_text
from seq2seq.data.tokenizer import EOS, SPACE
from seq2seq.model.intervention import intervened
from seq2seq.play.answers import Question, can_change
from seq2seq.play.changes import CHANGES, change_at
from seq2seq.play.engine import Engine
from seq2seq.run.directory import RunDir

pytest.importorskip("starlette", reason="play needs the extra `play`")
pytest.importorskip("uvicorn", reason="play needs the extra `play`")

from play_client import JSON, players, question, send

from seq2seq.play import server
from seq2seq.play.runs import Player
from seq2seq.play.server import MAX_BYTES, MAX_CHARACTERS, MAX_WORDS, application

pytestmark = pytest.mark.e2e

ODD = [
    "Quark the dog",
    "for cat teacher often sees cat ox Quark",
    "\u732b <b> & \u202e caf\u00e9",
    "",
]
SHORT = ["decode.max_ratio=0.1", "decode.min_ratio=0"]
LINES = [source for source, _ in template_pairs(46, seed=5)] + ODD


@pytest.fixture(scope="module")
def served(run):
    """The players and the application of a run."""
    with players(run, overrides=["decode.beam_size=4", "decode.batch_sentences=16"]) as made:
        yield made, application(made, "here.example")


@pytest.fixture(scope="module")
def app(served):
    return served[1]


def ask(app, kind: str, body: bytes, **how):
    return asyncio.run(send(app, f"/{kind}", body, **how))


# Answers ------------------------------------------------------------------------------------------


def test_many_at_once_get_what_decode_writes(run, served, script):
    made, app = served
    text = "".join(f"{line}\n" for line in LINES).encode()
    every = []
    for kind, settings in (("full", ["decode.beam_size=4"]), ("quick", ["decode.beam_size=1"])):
        decoded = script("decode", run, *settings, stdin=text).out.decode().split("\n")[:-1]
        batches, work = [], made[0].engine.kinds[kind]

        def counted(questions, wanted, work=work, batches=batches):
            batches.append(len(questions))
            return work(questions, wanted)

        async def everybody(kind=kind):
            bodies = (question(line, page=f"p{i}") for i, line in enumerate(LINES))
            return await asyncio.gather(*(send(app, f"/{kind}", body) for body in bodies))

        made[0].engine.kinds[kind] = counted
        replies = asyncio.run(everybody())
        made[0].engine.kinds[kind] = work
        assert [reply.json["text"] for reply in replies] == decoded
        assert len(decoded) == len(LINES) == sum(batches) == 50
        assert max(batches) == 16
        every.append(decoded)
    assert every[0] != every[1], "greedy search and a beam are not told apart"


def test_a_beginning_is_that_of_decode(run, app, script):
    lines = [
        json.dumps({"source": line, "prefix": prefix})
        for line in LINES[:4]
        for prefix in ("ce", "ce chien", "l'ours suit")
    ]
    stdin = "".join(f"{line}\n" for line in lines).encode()
    args = (run, "--input-format", "jsonl", "decode.beam_size=4")
    decoded = script("decode", *args, stdin=stdin).out.decode().splitlines()
    found = [ask(app, "full", question(**json.loads(line))).json["text"] for line in lines]
    assert found == decoded


def chance_of(forced, at: int) -> tuple[str, float]:
    """A word of a forced translation, and its probability."""
    words = forced.words().candidates[0]
    return words.tokens[at], math.exp(words.token_log_probs[at])


@pytest.mark.parametrize("prefix", ["", "ce", "ce chien"])
def test_other_words_have_the_probability_of_forced_decoding(run, app, prefix):
    model, source = seq2seq.load(run), LINES[0]
    found = ask(app, "alternatives", question(source, prefix=prefix)).json["alternatives"]
    assert 1 < len(found) <= 5
    assert len({other["word"] for other in found}) == len(found)
    chances = [other["probability"] for other in found]
    assert chances == sorted(chances, reverse=True)
    assert sum(chances) <= 1
    for other in found:
        assert other["prefix"].split() == [*prefix.split(), other["word"]]
        assert other["text"].startswith(other["prefix"])
    # The vocabulary cuts the first as the search has written it, which need not hold for the rest.
    [forced] = model.force([(source, found[0]["text"])])
    expected = found[0]["word"], pytest.approx(chances[0], abs=1e-4)
    assert chance_of(forced, len(prefix.split())) == expected
    if not prefix:
        assert ask(app, "quick", question(source)).json["text"] == found[0]["text"]
        assert ask(app, "alternatives", question(" ")).json == {"alternatives": []}


@pytest.mark.parametrize("prefix", ["ce ch", "ce ", "ce  \u00e9"])
def test_other_characters_are_those_of_forced_decoding(characters_run, prefix):
    """Of all that the vocabulary has: inside a word, after a space, and after two."""
    model, source = seq2seq.load(characters_run, SHORT), "the cat sees the dog ."
    target, at = model.tokenizers[1], len(prefix)
    units = [piece.replace(SPACE, " ") for piece in target.pieces(range(EOS + 1, len(target)))]
    forced = model.force((source, f"{prefix}{unit}.") for unit in units)
    chances = {
        u: math.exp(t.candidates[0].token_log_probs[at]) for u, t in zip(units, forced, strict=True)
    }
    expected = sorted(units, key=chances.__getitem__, reverse=True)[:5]
    with players(characters_run, overrides=SHORT) as made:
        app = application(made, "")
        found = ask(app, "alternatives", question(source, prefix=prefix)).json["alternatives"]
        assert [other["prefix"] for other in found] == [prefix + unit for unit in expected]
        assert [other["word"] for other in found] == [u.replace(" ", SPACE) for u in expected]
        for unit, other in zip(expected, found, strict=True):
            assert other["probability"] == pytest.approx(chances[unit], abs=1e-4)
        texts = [
            ask(app, "full", question(source, prefix=prefix + u)).json["text"] for u in (" ", "q")
        ]
    assert [text[: at + 1] for text in texts] == [f"{prefix} ", f"{prefix}q"]


def test_a_space_of_the_training_text_is_shown(characters_run):
    source, target = (load_text(RunDir(characters_run), "train", side)[0] for side in SIDES)
    begin = target.split()[0]
    with players(characters_run, overrides=SHORT) as [made]:
        made.neighbours.thread.join()
        asked = question(source, prefix=begin)
        first, *_ = ask(application([made], ""), "nearest", asked).json["nearest"]
    assert (first["before"], first["word"]) == (begin, " ")


@pytest.mark.parametrize(("change", "to"), [("flatten", 0), ("move", 4), ("move", 6)])
def test_changed_attention_is_that_of_forced_decoding(run, app, change, to):
    model, source = seq2seq.load(run), "the cat sees the dog ."
    [reply] = [ask(app, "intervene", question(source, prefix="ce", change=change, to=to))]
    word, *_ = reply.json["alternatives"]
    tokens = model.translate(source).source_tokens
    places = [i for i in range(len(tokens)) if change == "flatten" or i in groups_of(tokens)[to]]

    def changed(weights, _mask, step, _layer):
        row = torch.zeros(weights.shape[-1])
        row[places] = 1 / len(places)
        return row if step == 1 else weights

    assert len(model.tokenizers[1].encode(["ce"])[0]) == 1
    model.model = intervened(model.model, changed)
    [forced] = model.force([(source, word["text"])])
    assert chance_of(forced, 1) == (word["word"], pytest.approx(word["probability"], abs=1e-4))
    if to == 4:
        assert word["word"] == "chien"


def test_attention_moves_to_what_is_left_of_a_long_sentence(run):
    """Its pieces, as the page shows a sentence that is cut before its last word, and the end."""
    settings, source = ["decode.max_source_tokens=4"], "the cat sees the dog ."
    model = seq2seq.load(run, settings)
    plain = model.model
    with players(run, overrides=settings) as made:
        app = application(made, "")
        shown = ask(app, "full", question(source)).json["found"][0]["words"]["source"]
        assert len(shown) == 5
        for to in range(len(shown)):
            body = question(source, prefix="ce", change="move", to=to)
            word, *_ = ask(app, "intervene", body).json["alternatives"]
            row = torch.eye(len(shown))[to]
            model.model = intervened(plain, lambda w, _m, i, _l, row=row: row if i == 1 else w)
            [forced] = model.force([(source, word["prefix"])])
            chance = pytest.approx(word["probability"], abs=1e-4)
            assert chance_of(forced, 1) == (word["word"], chance)
        reply = ask(app, "intervene", question(source, change="move", to=5))
    assert reply.status == 400
    assert reply.json["error"] == "sentence: has no word 5. Name one from 0 to 4."


def groups_of(tokens) -> list[list[int]]:
    """The pieces of each word, and the end symbol."""
    starts = [i for i, token in enumerate(tokens) if token.startswith("\u2581") or token == "</s>"]
    ends = [*starts[1:], len(tokens)]
    return [[*range(start, end)] for start, end in zip(starts, ends, strict=True)]


def test_changes_of_weights():
    weights = torch.tensor([[[0.5, 0.3, 0.2, 0.0]]])
    applied = {
        name: change_at(2, name, [1, 3])(weights, weights > 0, 2, 0)[0, 0].tolist()
        for name in CHANGES
    }
    assert applied["flatten"] == [0.25] * 4
    assert applied["move"] == [0, 0.5, 0, 0.5]
    assert sorted(applied["permute"]) == sorted(weights[0, 0].tolist())
    assert applied["permute"] != weights[0, 0].tolist()
    for name in CHANGES:
        assert change_at(2, name, [1])(weights, weights > 0, 1, 0) is weights


def test_an_ensemble_has_no_one_attention_to_change(run):
    with players(f"{run}+{run}") as [ensemble]:
        assert not ensemble.about["canChange"]
        body = question("a", change="flatten", to=0)
        reply = ask(application([ensemble], ""), "intervene", body)
    assert (reply.status, reply.json["error"]) == (
        400,
        "run: is an ensemble, whose members attend each in their own way. Ask one of them.",
    )


def test_the_nearest_place_to_one_of_the_training_text_is_itself(run, served):
    made, app = served
    made[0].neighbours.thread.join()
    sources, targets = (load_text(RunDir(run), "train", side) for side in SIDES)
    for row, at in ((0, 1), (7, 3), (250, 2)):
        source, words = sources[row], targets[row].split()
        asked = question(source, prefix=" ".join(words[:at]))
        first, *others = ask(app, "nearest", asked).json["nearest"]
        assert first["cosine"] == 1
        assert first["source"] == source
        assert first["before"].split() == words[:at]
        assert (first["word"], first["after"].split()) == (words[at], words[at + 1 :])
        assert len(others) == 2
        assert all(other["cosine"] <= 1 for other in others)


def test_a_model_without_text_has_no_neighbours(run, tmp_path):
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("corpus"))
    with players(tmp_path / "run") as [made]:
        made.neighbours.thread.join()
        reply = ask(application([made], ""), "nearest", question("the cat"))
    assert reply.json == {"nearest": []}


def test_samples_are_those_of_a_sentence_alone(run):
    settings = ["decode.sample=true", "decode.temperature=2"]
    model = seq2seq.load(run, settings)
    with players(run, overrides=settings) as [made]:
        assert (made.about["canForce"], made.neighbours) == (False, None)
        asked = [made.engine.ask("full", Question(line), line) for line in LINES[:3]]
        found = [answer.result(30)["text"] for answer in asked]
    assert found == [model.translate(line).text for line in LINES[:3]]


@pytest.mark.parametrize("name", ["additive", "multi_head", "fixed"])
def test_only_attention_with_weights_can_be_changed(name):
    assert can_change(tiny_model(1, attention=FAMILY[name], align_size=6)) == (name != "fixed")
    assert can_change(tiny_transformer(3))


def test_an_answer_is_what_the_pictures_take(run, app):
    [t] = seq2seq.load(run, ["decode.beam_size=4"]).translate([LINES[1]])
    reply = ask(app, "full", question(LINES[1]))
    found, *_ = reply.json["found"]
    assert found["pieces"]["target"] == [*t.candidates[0].tokens]
    chances = np.exp(t.candidates[0].token_log_probs)
    assert found["pieces"]["probability"] == pytest.approx(chances.tolist(), abs=1e-4)
    assert reply.json["languages"] == {"source": "en", "target": "fr"}
    assert ask(app, "full", question("")).json["found"] == []


# Strangers ----------------------------------------------------------------------------------------


def test_pages_of_other_sites_are_refused(app):
    good, body = {"Host": "127.0.0.1:9"}, question("a")
    for host in ("localhost", "LOCALHOST:80", "[::1]:8014", "10.1.2.3:8014", "here.example:8014"):
        own = {"Host": host, "Origin": f"http://{host}", "Sec-Fetch-Site": "same-origin"}
        assert ask(app, "quick", body, headers=own).status == 200, host
    for strange in (
        {"Host": "evil.example:8014"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": ""},
        good | {"Origin": "http://evil.example"},
        good | {"Origin": "null"},
        good | {"Origin": "https://127.0.0.1:9"},
        good | {"Origin": "http://127.0.0.1:10"},
        good | {"Sec-Fetch-Site": "cross-site"},
        good | {"Sec-Fetch-Site": "same-site"},
    ):
        for method, path in (("POST", "/quick"), ("GET", "/"), ("GET", "/play.js")):
            reply = asyncio.run(send(app, path, body, strange, method))
            assert reply.status == 403, strange
            assert "\n" not in reply.json["error"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (question(3), 400, "source is not a text"),
        (question("a", prefix=None), 400, "prefix is not a text"),
        (question("a", language=[]), 400, "language is not a text"),
        (question("a", language="xx"), 400, "'xx' is not one of this run"),
        (question("a", prefix="\u732b"), 200, None),
        (question("a", beam=3), 400, "unknown key 'beam'"),
        (question("a", run=1), 400, "run is not a number from 0 to 0"),
        (question("a", run=True), 400, "run is not a number"),
        (question("a", run=-1), 400, "run is not a number"),
        (question("a", page=""), 400, "page is not a text of 1 to 64"),
        (question("a", page="x" * 65), 400, "page is not a text of 1 to 64"),
        (b'{"run": 0, "page": "x"}', 400, "source is missing"),
        (question("a\nb"), 400, "source is not a single line"),
        (question("a\0"), 400, "source is not a single line"),
        (question("a" * (MAX_CHARACTERS + 1)), 413, f"more than {MAX_CHARACTERS} characters"),
        (question("a " * (MAX_WORDS + 1)), 413, f"or {MAX_WORDS} words"),
        (question("a", prefix="b" * (MAX_CHARACTERS + 1)), 413, "prefix has more than"),
        (b"x" * (MAX_BYTES + 1), 413, f"more than {MAX_BYTES} bytes"),
        (b"", 400, "not valid JSON"),
        (b"[]", 400, "not a JSON object"),
        (b"[" * 10_000, 400, "not valid JSON"),
        (b'{"source": "\\ud800"}', 400, "not valid JSON"),
        (b'{"source": "\xff"}', 400, "not valid JSON"),
        (b'{"n": ' + b"9" * 5000 + b"}", 400, "not valid JSON"),
    ],
)
def test_a_wrong_question_is_answered_by_a_line(app, body, status, message):
    reply = ask(app, "alternatives", body)
    assert reply.status == status
    if message is not None:
        assert message in reply.json["error"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"change": "flatten"}, "to is missing"),
        ({"to": 0}, "change is missing"),
        ({"change": "zero", "to": 0}, "change is not one of flatten, permute, move"),
        ({"change": ["move"], "to": 0}, "change is not one of"),
        ({"change": "move", "to": -1}, "to is not the number of a word"),
        ({"change": "move", "to": 1.0}, "to is not the number of a word"),
        ({"change": "move", "to": 3}, "sentence: has no word 3. Name one from 0 to 2."),
    ],
)
def test_a_wrong_intervention_is_answered_by_a_line(app, fields, message):
    reply = ask(app, "intervene", question("the cat", **fields))
    assert (reply.status, message in reply.json["error"]) == (400, True), reply


def test_other_requests_are_answered_by_a_line(app, monkeypatch):
    for method, path, status in (
        ("GET", "/quick", 405), ("POST", "/", 405), ("DELETE", "/quick", 405), ("GET", "/x", 404),
        ("GET", "//etc/passwd", 404), ("GET", "/quick/", 404), ("GET", "/../config.yaml", 404),
    ):  # fmt: skip
        reply = asyncio.run(send(app, path, question("a"), {}, method))
        assert (reply.status, list(reply.json)) == (status, ["error"]), path
    assert ask(app, "quick", question("a"), headers={"Content-Type": "text/plain"}).status == 415
    blocks = asyncio.run(send(app, "/quick", [b" " * 1000] * 100, whole=False))
    assert (blocks.status, blocks.json["error"]) == (413, f"more than {MAX_BYTES} bytes")
    monkeypatch.setattr(server, "READ_SECONDS", 0.05)
    slow = asyncio.run(send(app, "/quick", [b"{"], whole=False))
    assert (slow.status, slow.json["error"]) == (408, "no whole question within 0.05 seconds")
    assert asyncio.run(send(app, "/quick", [b"{"], whole=False, gone=True)).status == 400


def test_a_bug_of_the_server_is_a_line(served, monkeypatch, caplog):
    def question_of(*_):
        raise ZeroDivisionError("of zero")

    monkeypatch.setattr(server, "question_of", question_of)
    reply = ask(served[1], "full", question("a"))
    assert (reply.status, "x-content-type-options" in reply.headers) == (500, True)
    assert reply.json["error"].startswith("play: internal error (ZeroDivisionError: of zero).")
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


def strange(rng: random.Random) -> tuple[str, bytes, dict[str, str], str]:
    """A request that no page of ours makes: path, body, headers, method."""
    texts = [*HARMFUL, "\u202e\u2066", "../" * 9, "\0", "\ud800", "\n", "\U0010ffff", "a " * 200]
    texts += [
        "x" * 2 ** rng.randrange(15),
        "\u0e01" * 900,
        "\u0301" * 500,
        "'; DROP TABLE",
        "%00%2e",
    ]
    paths = [
        "/full",
        "/quick",
        "/alternatives",
        "/",
        "/../run.json",
        "//",
        "/config.yaml",
        "/%2e%2e/",
    ]
    value = rng.choice([*texts, 3, None, True, [], {}, [[]] * 9, 1e308, -1, {"source": "a"}])
    fields = {rng.choice(["source", "prefix", "run", "page", "language", *texts[:3]]): value}
    body = question(**{"source": rng.choice(["the cat .", *texts]), **fields})
    if rng.random() < 0.2:
        body = rng.randbytes(rng.randrange(3000))
    headers = {}
    for name in rng.sample(["Host", "Origin", "Content-Type", "Content-Length", "Cookie"], 2):
        odd = ["evil.example", "null", "text/html", "-1", "9" * 30, "\xff", "127.0.0.1", "a" * 999]
        headers |= {name: rng.choice(odd)} if rng.random() < 0.3 else {}
    method = rng.choice(["POST"] * 8 + ["GET", "PUT", "TRACE", "OPTIONS"])
    return rng.choice(paths), body, headers, method


@pytest.mark.parametrize("count", [60, pytest.param(1000, marks=pytest.mark.slow)])
def test_strange_requests_leave_it_up_and_read_nothing(run, app, count, caplog):
    opened: list[object] = []
    listening = [True]
    sys.addaudithook(lambda e, a: opened.append(a[0]) if e == "open" and listening[0] else None)
    for seed in range(count):
        path, body, headers, method = strange(random.Random(seed))
        reply = asyncio.run(send(app, path, body, headers, method))
        assert reply.status == 200 or 400 <= reply.status < 500, (seed, reply)
        assert reply.headers["content-security-policy"].startswith("default-src 'none'")
        assert reply.headers["x-content-type-options"] == "nosniff"
        if reply.status != 200:
            assert reply.headers["content-type"] == "application/json"
            [error] = reply.json.values()
            assert 0 < len(error) < 2100
            assert error.isprintable(), (seed, error)
        elif method == "POST":
            assert reply.headers["content-type"] == "application/json"
    listening[0] = False
    names = [name for name in opened if not isinstance(name, int)]
    assert [name for name in names if not Path(name).resolve().is_relative_to(run)] == []
    assert not caplog.records
    assert ask(app, "full", question(LINES[0])).json["text"]


def test_the_page_loads_its_own_files_alone(app):
    page = asyncio.run(send(app, "/", method="GET"))
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    assert b"http" not in page.body.replace(b"http-equiv", b"")
    for name in ("play.js", "play.css"):
        assert asyncio.run(send(app, f"/{name}", method="GET")).status == 200


def test_answers_that_do_not_come_are_answered_by_a_line(monkeypatch, caplog):
    held = Held()
    engine = Engine({"full": held}, 3)
    app = application([Player({}, engine, None)], "")
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.05)
    late = ask(app, "full", question("a"))
    assert (late.status, late.json) == (503, {"error": "no answer within 0.05 seconds"})
    monkeypatch.undo()

    async def twice():
        first = asyncio.create_task(send(app, "/full", question("b")))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(send(app, "/full", question("c")))
        await asyncio.sleep(0.05)
        held.go.set()
        return [(await task).json for task in (first, second)]

    assert asyncio.run(twice()) == [{"superseded": True}, {"text": "c"}]
    bug = ask(app, "full", question("bug"))
    assert bug.status == 500
    assert bug.json["error"].startswith("play: internal error (ZeroDivisionError: of zero).")
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    engine.close()


def test_it_serves_until_a_signal_and_ends_with_its_code(run):
    command = [sys.executable, "-m", "seq2seq", "play", run, "--port", "0"]
    env = environment(PYTHONPATH=str(ROOT))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, env=env, **pipes))
        stack.callback(process.kill)
        word, url = process.stdout.readline().decode().split()
        assert word == "play"
        assert url.startswith("http://127.0.0.1:")
        asked = urllib.request.Request(f"{url}quick", question(LINES[0]), JSON)
        with urllib.request.urlopen(asked, timeout=30) as reply:
            assert json.load(reply)["text"]
        address = tuple(url.removeprefix("http://").rstrip("/").split(":"))
        for sent in (b"\0" * 9, b"GET / HTTP/9\r\n\r\n", b"POST /full HTTP/1.1\r\n" * 999):
            with socket.create_connection(address, timeout=30) as raw:
                raw.sendall(sent)
                assert raw.recv(12) == b"HTTP/1.1 400"
        stack.enter_context(socket.create_connection(address))  # idle
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=30) == (b"", b"")
        assert process.returncode == 130
