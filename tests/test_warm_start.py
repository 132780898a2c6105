"""A run that begins with the weights and the vocabularies of another: `init.run`."""

import gzip
import hashlib
import json
import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import PAD, TINY, VOCAB, batch_loss, random_batch, tiny_model, with_values
from forks import call_here
from recorded import checksums
from runs import (
    ROOT,
    begin,
    composed,
    config_of,
    copy_of,
    go,
    run_new,
    template_pairs,
    write_corpus,
)
from safetensors.torch import load_file

import seq2seq
from seq2seq.cli.stages import trainer_of
from seq2seq.config.compose import flatten, is_within
from seq2seq.config.schema import Backend, Normalize, Tied, WordsConfig
from seq2seq.data.prepare import load_tokenizers
from seq2seq.decoding.pretrained import new_model
from seq2seq.model import build_model
from seq2seq.run.checksums import read_checksummed
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError, DataError, RunDirError
from seq2seq.run.signals import StopRequest
from seq2seq.training.checkpoint import best_weights, directory_of, update_of
from seq2seq.training.optim import check_names, clip_gradients, freeze
from seq2seq.training.vectors import check_vectors, fill_embeddings
from seq2seq.training.weight_names import matching

pytestmark = pytest.mark.e2e

LIKE_TINY = ["tokenizer.vocab_size=120", "tokenizer.sampling=0", "trainer.ema_decay=0.9"]
SHORT = ["trainer.max_updates=4", "trainer.validate_every=10", "trainer.checkpoint_every=2"]
SHORT += ["trainer.keep_checkpoints=9"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> list[str]:
    """Other sentences than the origin's, with a word and a letter that it has never seen."""
    pairs = template_pairs(120, seed=2)
    pairs[50:60] = [(f"{a} zebra", f"{b} zèbre") for a, b in pairs[50:60]]
    return write_corpus(tmp_path_factory.mktemp("domain"), pairs)


@pytest.fixture(scope="module")
def config(corpus):
    """`config(origin, *changes)`: a short training on the new corpus."""

    def make(origin: Path, *changes: str, stages: str = "tokenize,train"):
        names = [*corpus, *LIKE_TINY, *SHORT, f"stages=[{stages}]", f"init.run={origin}"]
        return composed("debug", [*names, *changes])

    return make


def test_at_update_0_a_warm_start_is_its_origin_to_the_bit(run, tmp_path):
    """Its corpus again, and an update of almost no size, so that what it began with is decoded."""
    own = RunDir.open(run)
    cfg = composed("debug", [*LIKE_TINY, *SHORT, "trainer.max_updates=1", "optimizer.lr=1e-30"])
    cfg.data, cfg.init.run = config_of(run).data, str(run)
    cfg.decode = config_of(run).decode
    new = run_new(tmp_path / "new", cfg)

    best, weights = best_weights(own)
    for name in ("model", "average"):
        assert (directory_of(new, 0) / f"{name}.safetensors").read_bytes() == weights
    assert not load_file(directory_of(new, 0) / "optimizer.safetensors")
    for name in ("decode/test.txt", "decode/test.jsonl", "tokens/train.source.ids"):
        assert (new.root / name).read_bytes() == (run / name).read_bytes()
    assert best_weights(new)[0].parent.name == "update-00000000"

    # What it comes from is on record; the model to hand on says nothing of it.
    record = read_checksummed(new.path("run.json"))["init"]
    manifest = json.loads((best.parent / "manifest.json").read_bytes())
    assert record == {
        "run": f".../{run.name}",
        "update": int(best.parent.name[-8:]),
        "sha256": manifest["files"][best.name]["sha256"],
    }
    assert config_of(new.path("model")).init.run is None
    assert seq2seq.load(new.path("model")).update == 0


@pytest.mark.parametrize(
    ("selector", "expected"),
    [("@update-120", [120]), ("@last", [160]), ("@best", None), ("@last2", [120, 160])],
)
def test_an_origin_takes_the_selectors_of_decoding(run, tmp_path, config, selector, expected):
    """Row O12: any kept checkpoint, or the mean of several, in float64."""
    new = begin(tmp_path / "new", config(f"{run}{selector}"))
    updates = expected or [update_of(best_weights(RunDir.open(run))[0].parent)]
    paths = [directory_of(RunDir.open(run), n) / "average.safetensors" for n in updates]
    parts, taken = (
        [load_file(path) for path in paths],
        load_file(new.path("init/model.safetensors")),
    )
    for name, weight in taken.items():
        mean = sum(part[name].double() for part in parts) / len(parts)
        assert torch.equal(weight, mean.float()), name
    assert taken.keys() == parts[0].keys()

    sums = {
        str(n): hashlib.sha256(p.read_bytes()).hexdigest()
        for n, p in zip(updates, paths, strict=True)
    }
    record = {"run": f".../{run.name}{selector}", "update": updates[-1]}
    record["sha256"] = sums[str(updates[-1])]
    record |= {"mean_of": sums} if len(updates) > 1 else {}
    assert read_checksummed(new.path("run.json"))["init"] == record


@pytest.mark.parametrize(
    ("suffix", "message"),
    [
        ("@update-7", "@update-7: names no checkpoint. It has: best, last, update-"),
        ("@last9", "@last9: asks for 9 checkpoints, the run has"),
        ("+{run}", "' names 2 runs. Name one; RUN@last5 is the mean of five checkpoints."),
    ],
)
def test_a_selector_of_nothing_is_one_line(run, tmp_path, config, suffix, message):
    with pytest.raises((RunDirError, ConfigError)) as caught:
        begin(tmp_path / "new", config(f"{run}{suffix.format(run=run)}"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_run_needs_its_origin_no_more_once_it_is_made(run, tmp_path, config, script):
    origin = copy_of(run, tmp_path / "origin")
    whole = run_new(tmp_path / "whole", config(origin))
    begun = begin(tmp_path / "begun", config(origin))
    begun.unlock()
    shutil.rmtree(origin)
    go(begun.root, "stages=[tokenize,train]", "trainer.max_updates=2")
    go(begun.root, "trainer.max_updates=4")
    assert checksums(directory_of(begun, 4)) == checksums(directory_of(whole, 4))
    assert checksums(directory_of(whole, 4)) != checksums(directory_of(whole, 0))
    assert (
        begun.path("tokenizers/source.model").read_bytes()
        == (run / "tokenizers/source.model").read_bytes()
    )

    kept = begun.path("init/model.safetensors")
    assert b"init/model.safetensors  ok" in script("verify", begun.root).out
    kept.write_bytes(kept.read_bytes()[:-1])
    assert script("verify", begun.root).code == 4


MISMATCHES = {
    "the attention": (
        ["attention=dot"],
        "{run} has attention=additive, not attention=dot. Give its settings, or name in init.parts "
        "what to take from it.",
    ),
    "a size": (
        ["model.hidden_size=32"],
        "{run} has model.hidden_size=24, not model.hidden_size=32",
    ),
    "what no size shows": (
        ["cell.reset=after"],
        "{run} has cell.reset=before, not cell.reset=after",
    ),
    "another family": (
        ["encoder=stacked", "cell=lstm"],
        "{run} has cell=gated encoder=recurrent, not cell=lstm encoder=stacked",
    ),
    "the vocabulary": (
        ["tokenizer.vocab_size=100", "tokenizer.joint=true"],
        "{run} has tokenizer.joint=false tokenizer.vocab_size=120, not tokenizer.joint=true "
        "tokenizer.vocab_size=100. Use its settings: its vocabularies are taken over.",
    ),
    "another kind of vocabulary": (
        ["tokenizer=words"],
        "{run} has tokenizer=sentencepiece, not tokenizer=words",
    ),
    "parts of other sizes": (
        ["model.hidden_size=32", "init.parts=[encoder,decoder.embedding]"],
        "{run} has other encoder.backward_unit, encoder.forward_unit "
        "(encoder.backward_unit.U.weight: (24, 24), not (32, 32)). "
        "Name in init.parts what to take from it.",
    ),
    "parts that are not there": (
        ["encoder=stacked", "init.parts=[encoder]"],
        "{run} has other encoder.backward_unit, encoder.forward_unit, encoder.layers (",
    ),
    "no such part": (
        ["init.parts=[encoder,decodr]"],
        "init.parts: 'decodr' matches no weight. Known: decoder.",
    ),
}


@pytest.mark.parametrize("mismatch", MISMATCHES)
def test_what_does_not_fit_is_one_line_before_anything_is_made(run, tmp_path, config, mismatch):
    changes, text = MISMATCHES[mismatch]
    plain = [change for change in changes if not change.startswith("tokenizer=")]
    cfg = config(run, *plain)
    if plain != changes:
        cfg.tokenizer = WordsConfig()
    with pytest.raises(ConfigError) as caught:
        begin(tmp_path / "new", cfg)
    assert text.format(run=run) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_damaged_origin_is_refused(run, tmp_path, config):
    origin = copy_of(run / "model", tmp_path / "origin")
    path, _ = best_weights(RunDir.open(origin))
    for name, text in (
        ("tokenizers/source.model", "SHA-256"),
        (path.relative_to(origin), "all 1 checkpoints are damaged"),
    ):
        whole = (origin / name).read_bytes()
        (origin / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(RunDirError, match=text):
            begin(tmp_path / "new", config(origin))
        (origin / name).write_bytes(whole)
    with pytest.raises(RunDirError, match="holds no run"):
        begin(tmp_path / "new", config(tmp_path / "nothing"))
    assert not (tmp_path / "new").exists()


def test_parts_are_taken_and_the_others_drawn(run, tmp_path, config, caplog):
    caplog.set_level("INFO")
    cfg = config(run, "attention=general", "init.parts=[encoder,decoder.embedding,'decoder.W_?.*']")
    new = run_new(tmp_path / "new", cfg)
    its, drawn, begun = (
        load_file(best_weights(RunDir.open(run))[0]),
        dict(new_model(cfg, load_tokenizers(new, cfg)).named_parameters()),
        load_file(directory_of(new, 0) / "model.safetensors"),
    )
    taken = {name for name in begun if re.match(r"encoder|decoder\.(embedding|W_.\.)", name)}
    assert 0 < len(taken) < len(begun)
    for name, weight in begun.items():
        assert torch.equal(weight, its[name] if name in taken else drawn[name]), name

    origin = f".../{run.name}"
    assert (
        f"weights of {origin}, update 160: decoder.W_o, decoder.W_s, decoder.embedding, encoder"
        in caplog.messages
    )
    assert (
        "weights drawn anew: decoder.C_o, decoder.U_o, decoder.V_o, decoder.attention, decoder.unit"
        in caplog.messages
    )
    assert f"init.run: {run} has attention=additive, not attention=general" in caplog.messages


@pytest.mark.parametrize("source", ["en", "de"])
def test_other_languages_than_the_vocabularies_are_said(run, tmp_path, config, caplog, source):
    begin(tmp_path / "new", config(run, f"data.source_language={source}"))
    said = "the vocabularies were learnt on en-fr, and this run is de-fr" in caplog.messages
    assert said == (source == "de")


@pytest.mark.parametrize("order", ["right_to_left", "left_to_right"])
def test_targets_in_the_other_order_are_warned_of(run, tmp_path, config, caplog, order):
    begin(tmp_path / "new", config(run, f"data.target_order={order}"))
    said = f"writes left_to_right, and this run {order}: its decoder" in caplog.text
    assert said == (order == "right_to_left")


@pytest.mark.parametrize("form", ["an exported model", "a run of 0.1.0"])
def test_origins_in_other_forms(run, tmp_path, corpus, form):
    if form == "an exported model":
        origin, like = run / "model", LIKE_TINY
    else:
        origin = ROOT / "tests/formats/0.1.0/additive"
        settings = flatten(config_of(origin))
        groups = ("model", "cell", "encoder", "decoder", "tokenizer")
        like = [
            f"{k}={'null' if v is None else v}" for k, v in settings.items() if is_within(k, groups)
        ]
    stages = "stages=[tokenize,train]"
    cfg = composed("debug", [*corpus, *like, *SHORT, stages, f"init.run={origin}"])
    new = run_new(tmp_path / "new", cfg)
    path, data = best_weights(RunDir.open(origin))
    assert (directory_of(new, 0) / "model.safetensors").read_bytes() == data
    assert read_checksummed(new.path("run.json"))["init"]["update"] == update_of(path.parent)


# Part of the weights alone, or each at its own rate --------------------------------------------


def test_frozen_weights_stay_to_the_bit_and_a_resumed_run_keeps_them(run, tmp_path, config):
    frozen = "trainer.freeze=[encoder,'decoder.*.E.weight']"
    whole = run_new(tmp_path / "whole", config(run, frozen, "optimizer.weight_decay=0.1"))
    first, last = (load_file(directory_of(whole, n) / "model.safetensors") for n in (0, 4))
    for name, weight in first.items():
        still = name.startswith("encoder.") or name == "decoder.embedding.E.weight"
        assert torch.equal(weight, last[name]) == still, name
    state = load_file(directory_of(whole, 4) / "optimizer.safetensors")
    assert {name.rpartition("/")[0] for name in state} == {
        n for n in first if not n.startswith("encoder.") and n != "decoder.embedding.E.weight"
    }
    parts = run_new(
        tmp_path / "parts",
        config(run, frozen, "optimizer.weight_decay=0.1", "trainer.max_updates=2"),
    )
    go(parts.root, "trainer.max_updates=4")
    for file in ("model", "optimizer", "average"):
        name = f"{file}.safetensors"
        assert (directory_of(parts, 4) / name).read_bytes() == (
            directory_of(whole, 4) / name
        ).read_bytes()


@pytest.mark.parametrize("backend", Backend)
def test_freezing_changes_no_gradient_of_the_others_and_they_alone_are_clipped(backend):
    cfg = with_values(TINY, backend=backend)
    for frozen in ("encoder", "decoder.embedding", "decoder.attention", "decoder.unit", "*.U*"):
        grads = []
        for patterns in ([], [frozen]):
            torch.manual_seed(1)
            model = build_model(cfg, num_source=VOCAB, num_target=VOCAB, pad=PAD)
            freeze(model, patterns)
            batch_loss(model, random_batch(1)).objective(Normalize.none).backward()
            grads.append({n: p.grad for n, p in model.named_parameters()})
            norm = clip_gradients(model, math.inf)
        kept = {name: grad for name, grad in grads[1].items() if grad is not None}
        assert 0 < len(kept) < len(grads[0])
        assert all(torch.equal(grad, grads[0][name]) for name, grad in kept.items())
        assert norm == pytest.approx(float(torch.cat([g.flatten() for g in kept.values()]).norm()))


def test_each_weight_moves_at_its_own_rate_and_a_resumed_run_goes_on_so(run, tmp_path, config):
    """The first step of Adam has the size of the rate, whatever the gradient."""
    factors = "trainer.lr_factors={encoder:0.5,decoder:0.5,*.E.weight:0.5,decoder.W_s:4}"
    changes = ["optimizer.eps=1e-30", "optimizer.lr=0.01", "scheduler=constant", factors]
    whole = run_new(tmp_path / "whole", config(run, *changes, "trainer.checkpoint_every=1"))
    first, second = (load_file(directory_of(whole, n) / "model.safetensors") for n in (0, 1))
    for name, weight in first.items():
        moved = float((second[name] - weight).abs().max())
        rate = 0.02 if "W_s" in name else 0.0025 if "E.weight" in name else 0.005
        assert moved == pytest.approx(rate, rel=1e-3), name
    parts = run_new(tmp_path / "parts", config(run, *changes, "trainer.max_updates=2"))
    go(parts.root, "trainer.max_updates=4")
    for file in ("model", "optimizer"):
        name = f"{file}.safetensors"
        assert (directory_of(parts, 4) / name).read_bytes() == (
            directory_of(whole, 4) / name
        ).read_bytes()


def test_shared_weights_go_by_all_their_names():
    model = tiny_model(tied=Tied.target)
    assert matching(model, ["decoder.W_o.1.weight"], "x") == {"decoder.embedding.E.weight"}


WRONG_NAMES = {
    "trainer.freeze=[encodr]": (
        "trainer.freeze: 'encodr' matches no weight. Known: decoder.C_o, decoder.U_o, "
    ),
    "trainer.lr_factors={decoder.unit.x:2}": (
        "trainer.lr_factors: 'decoder.unit.x' matches no weight. Known: "
    ),
    "trainer.freeze=[encoder,decoder]": (
        "trainer.freeze leaves nothing to train. Name fewer weights."
    ),
}


@pytest.mark.parametrize("change", WRONG_NAMES)
def test_names_of_no_weights_are_one_line(change):
    with pytest.raises(ConfigError) as caught:
        check_names(composed("debug", [change]))
    assert str(caught.value).startswith(f"config: {WRONG_NAMES[change]}")


# Vectors from elsewhere -------------------------------------------------------------------------


def numbered(tokens: list[str], size: int = 16) -> dict[str, list[float]]:
    return {token: [i + j / 8 for j in range(size)] for i, token in enumerate(tokens, start=1)}


def as_text(vectors: dict[str, list[float]], header: str = "") -> str:
    return header + "".join(f"{t} {' '.join(map(str, row))} \n" for t, row in vectors.items())


@pytest.mark.parametrize("form", ["words", "pieces", "words, packed"])
def test_vectors_are_the_first_embeddings_of_the_words_that_they_name(run, tmp_path, caplog, form):
    caplog.set_level("INFO")
    own, cfg = RunDir.open(run), config_of(run)
    pieces = load_tokenizers(own, cfg)[1].pieces(range(3, 120))
    starts = [i for i, piece in enumerate(pieces, start=3) if re.match("\u2581\\w", piece)]
    rest = [i for i, piece in enumerate(pieces, start=3) if re.match(r"\w", piece)]
    meant = starts if form != "pieces" else starts + rest
    names = [pieces[i - 3].removeprefix("\u2581" if form != "pieces" else "") for i in meant]
    vectors = numbered([*names, "zzz", "a b"])
    text = as_text(vectors, f"{len(vectors)} 16\n" if form != "pieces" else "") + as_text(
        numbered(names[:1], 17)  # again, and with a space in it
    )
    path = tmp_path / "vectors.txt"
    path.write_bytes(gzip.compress(text.encode()) if "packed" in form else text.encode())

    drawn = new_model(cfg, load_tokenizers(own, cfg)).decoder.embedding.E.weight.detach()
    cfg.init.target_vectors = str(path)
    check_vectors(cfg)
    bare = copy_of(run, tmp_path / "bare")
    shutil.rmtree(bare / "checkpoints")
    filled = trainer_of(cfg, RunDir.open(bare), StopRequest()).model.decoder.embedding.E.weight
    for i, row in enumerate(filled):
        expected = torch.tensor(vectors[names[meant.index(i)]]) if i in meant else drawn[i]
        assert torch.equal(row, expected), i
    assert f"vectors.txt: vectors for {len(meant)} of 120 tokens" in caplog.messages


BAD_VECTORS = {
    "too wide": (
        as_text(numbered(["the"], 17)),
        "vectors.txt:1: has 17 numbers, and model.embedding_size is 16. "
        "Set model.embedding_size=17, or name vectors of this size.",
    ),
    "too narrow, after a header": (as_text(numbered(["the"], 3), "1 3\n"), "txt:2: has 3 numbers"),
    "a short line": (
        as_text(numbered(["x"])) + as_text(numbered(["the"], 15)),
        "vectors.txt:2: has 15 numbers, and model.embedding_size is 16. Fix the line.",
    ),
    "no number": ("the" + " 0.1" * 15 + " x\n", "txt:1: has values that are not finite numbers"),
    "not finite": ("the" + " 0.1" * 15 + " nan\n", "txt:1: has values that are not finite numbers"),
    "other words": (as_text(numbered(["zzz"])), "has no vector for any token of the vocabulary"),
    "nothing": ("", "holds no vectors"),
}


@pytest.mark.parametrize("bad", BAD_VECTORS)
def test_bad_vectors_are_one_line_with_file_and_line(run, tmp_path, bad):
    text, message = BAD_VECTORS[bad]
    path, cfg = tmp_path / "vectors.txt", config_of(run)
    path.write_text(text, "utf-8")
    cfg.init.source_vectors = str(path)
    tokenizers = load_tokenizers(RunDir.open(run), cfg)

    def use() -> None:
        check_vectors(cfg)
        fill_embeddings(new_model(cfg, tokenizers), cfg, tokenizers)

    with pytest.raises(DataError) as caught:
        use()
    assert message in str(caught.value)


@pytest.mark.e2e
def test_three_commands_on_other_data_and_another_rate(run, tmp_path, corpus):
    """Train (the fixture), adapt, translate; and what is wrong is said before a run is made."""
    adapt = [ROOT / "train.py", "+experiment=debug", *corpus, *LIKE_TINY, *SHORT, "threads=1"]
    adapt += [f"init.run={run}", "optimizer.lr=0.001", "run_dir=new", "logging.tensorboard=false"]
    adapt += ["trainer.freeze=[encoder]", "trainer.lr_factors={decoder.attention:0.1}"]
    for wrong in ("attention=dot", "trainer.freeze=[x]", "init.source_vectors=x"):
        refused = call_here(*adapt, wrong, cwd=tmp_path)
        assert (refused.returncode, refused.stderr.count(b"\n")) == (
            3 if "vectors" in wrong else 1,
            1,
        )
    assert not (tmp_path / "new").exists()
    done = call_here(*adapt, "stages=[tokenize,train]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr.decode()
    for line in ("weights drawn anew: none", f"vocabularies are those of {run}: none is learnt"):
        assert line in done.stderr.decode().splitlines()
        assert line in (tmp_path / "new/train.log").read_text("utf-8")
    assert "validation after update 0:" in done.stderr.decode()
