"""Attention guided by word links: against NumPy, from a file to tokens, and in a training."""

import copy
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import (
    FAMILY,
    STACKED,
    loss_of,
    oracle_of,
    random_batch,
    tiny_model,
    tiny_transformer,
)
from runs import (
    begin,
    composed,
    config_of,
    goes_on_to_the_bit,
    locked,
    template_pairs,
    write_corpus,
)

from seq2seq.config.registry import build
from seq2seq.config.schema import Backend, Config, GuidedAlignmentConfig
from seq2seq.data.prepare import load_pairs, load_tokenizers, prepare
from seq2seq.data.tokenizer import PAD
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError, DataError
from seq2seq.training.gradient import accumulated_gradient
from seq2seq.training.links import TokenLinks
from seq2seq.training.objective import draw_keys

SIZES = ((4, 3), (1, 5), (5, 2), (3, 4))
GUIDED = GuidedAlignmentConfig(weight=0.3)


def linked_batch(seed):
    """Some target tokens have one link, some several, some none."""
    batch, random = random_batch(seed, SIZES), np.random.default_rng(seed)
    links = random.random((len(SIZES), 5, 5)) < 0.4
    links &= batch.tgt_mask.numpy()[:, :, None] & batch.src_mask.numpy()[:, None]
    assert {0, 1, 2} <= {*links.sum(axis=2)[batch.tgt_mask.numpy()].tolist()}
    return replace(batch, links=torch.tensor(links))


def numpy_objective(oracle, batch):
    """S and the weighted cross entropy, word by word, of complex weights too."""
    total, guided = 0.0, 0.0
    for b, sizes in enumerate(SIZES):
        src, tgt = batch.src[b, : sizes[0]].tolist(), batch.tgt[b, : sizes[1]].tolist()
        forced = oracle.force(src, tgt)
        total += forced.cost
        for i, alpha in enumerate(forced.alignments):
            linked = batch.links[b, i].nonzero()[:, 0].tolist()
            for j in linked:
                # Outside the window of `local` alpha is 0, and has no gradient.
                seen = alpha[j] if alpha[j] != 0 else np.finfo(float).tiny
                guided -= 0.3 * np.log(seen) / len(linked)
    return total, guided


def members():
    for name, kind in FAMILY.items():
        if not name.startswith(("fixed", "hard", "uniform")):
            yield name, lambda kind=kind: tiny_model(1, attention=kind, align_size=6)
    for name in ("between, residual", "bottom", "fed"):
        yield name, lambda name=name: tiny_model(1, decoder=STACKED[name])
    yield "fused", lambda: tiny_model(1, backend=Backend.fused)
    yield "mean of heads", lambda: tiny_transformer(1)
    yield "one head", lambda: tiny_transformer(1, layer=1, head=2)


@pytest.mark.parametrize("make", [pytest.param(make, id=name) for name, make in members()])
def test_value_and_gradient_are_those_of_numpy(make):
    model, batch = make(), linked_batch(2)
    kind = build(GUIDED, Config(objective=GUIDED), ())
    loss = loss_of(kind, model, batch, draw_keys(3, 5, len(SIZES), 1))
    oracle, random = oracle_of(model), np.random.default_rng(2)
    total, guided = numpy_objective(oracle, batch)
    assert loss.total.item() == pytest.approx(total, rel=1e-10)
    assert loss.extra.item() == pytest.approx(guided, rel=1e-10)
    assert guided > 1
    (loss.smoothed + loss.extra).backward()
    for name, weight in oracle.weights.items():
        grad, direction = model.get_parameter(name).grad.numpy(), random.normal(size=weight.shape)
        moved = copy.copy(oracle)
        moved.weights = {**oracle.weights, name: weight + 1e-30j * direction}
        slope = sum(numpy_objective(moved, batch)).imag / 1e-30
        assert (grad * direction).sum() == pytest.approx(slope, rel=1e-10, abs=1e-10), name


def gradient(model, batch, parts=1, **changes):
    cfg = Config(objective=replace(GUIDED, **changes))
    objective = build(cfg.objective, cfg, ())
    keys = draw_keys(3, 5, batch.num_sentences, objective.passes)
    accumulated_gradient(model, objective, batch, keys, parts, cfg)
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("backend", Backend)
def test_sentences_computed_alone_add_up_to_the_batch(backend):
    model = tiny_model(3, embedding_dropout=0.4, backend=backend).train()
    batch = linked_batch(3)
    whole, plain = gradient(model, batch), gradient(model, batch, weight=0.0)
    for name, grad in gradient(model, batch, parts=len(SIZES)).items():
        torch.testing.assert_close(grad, whole[name], rtol=1e-9, atol=1e-12)
    v_a = "decoder.attention.v_a.weight"
    assert not torch.allclose(whole[v_a], plain[v_a])


@pytest.mark.parametrize(
    "change",
    [
        "attention=fixed",
        "attention=hard",
        "tokenizer.sampling=0.1",
        "data.target_order=right_to_left",
        "data.placeholders=[url]",
    ],
)
def test_what_it_does_not_go_together_with(change):
    with pytest.raises(ConfigError, match=f"cannot be combined with {change.split('=')[0]}"):
        composed("debug", ["tokenizer.sampling=0", "objective=guided_alignment", change])


def test_several_corpora_have_no_links():
    for change in ("objective=guided_alignment", "data.links=x"):
        with pytest.raises(ConfigError, match=r"data\.corpora"):
            composed("multi30k_tagged", ["tokenizer.sampling=0", change])


# From a file to tokens ---------------------------------------------------------------------------


def linked_run(folder, lines, *changes, pairs=None):
    """A run of a corpus with links, whose data is prepared."""
    pairs = pairs or template_pairs(60)
    names = write_corpus(folder / "corpus", pairs, held_out=5)
    text = "".join(f"{line}\n" for line in lines)
    (folder / "corpus/train.links").write_bytes(text.encode("utf-8", "surrogateescape"))
    changes = [*names, "tokenizer.sampling=0", "tokenizer.vocab_size=90", *changes]
    cfg = composed("debug", [*changes, "objective=guided_alignment", "data.links=train.links"])
    with locked(begin(folder / "run", cfg)) as run:
        prepare(run, cfg)
    return run, cfg


def diagonals(pairs, shift=0):
    """Word n of a source to word n of its target, as far as there is one."""
    sizes = [min(len(side.split()) for side in pair) for pair in pairs]
    return [" ".join(f"{i}-{i}" for i in range(shift, n)) for n in sizes]


@pytest.mark.parametrize("level", ["words", "blanks"])
def test_links_between_words_are_links_between_all_of_their_tokens(level, tmp_path):
    """Long pairs are dropped with their links; a quoted word is three words, but one string."""
    pairs = [
        (a.replace("dog", '"dog"'), b.replace("chien", '"chien"')) for a, b in template_pairs(60)
    ]
    pairs[12], pairs[20] = ("word " * 30, "mot " * 30), ("the cat .", "le chat .")
    train = pairs[10:]
    lines = diagonals(train)
    lines[10] = ""  # of pair 20
    changes = ["data.max_words=20", f"data.link_level={level}"]
    run, cfg = linked_run(tmp_path, lines, *changes, pairs=pairs)
    tokenizers = load_tokenizers(run, cfg)
    data, links = load_pairs(run, "train", tokenizers), TokenLinks(run, cfg, tokenizers)
    kept = [pair for pair in train if len(pair[0].split()) <= 20]
    assert len(data) == len(kept) == len(train) - 1
    rows = [30, 2, 9, 40]
    batch = data.batch(rows, PAD)
    found = links.of(rows, batch)
    assert torch.equal(found, links.of(rows, batch))
    for own, row in zip(found, rows, strict=True):
        sides = [t.tokens([text])[0] for t, text in zip(tokenizers, kept[row], strict=True)]
        words = [words_of(text, side, level) for text, side in zip(kept[row], sides, strict=True)]
        count = min(len(text.split()) for text in kept[row]) if row != 9 else 0
        expected = np.zeros(own.shape)
        for i, target in enumerate(words[1]):
            linked = [j for j, source in enumerate(words[0]) if source == target < count]
            expected[i, linked] = True
        np.testing.assert_array_equal(own, expected)
        assert bool(own.any()) == (row != 9)
    inputs = json.loads((run.root / "data_report.json").read_text("utf-8"))["train"]["inputs"]
    assert {file["name"]: file["lines"] for file in inputs}["train.links"] == len(train)


def words_of(text, tokens, level):
    """The number of each token's word; among `words` quotes and stops stand alone."""
    pattern = r"\"|\.|[^\s\".']+'?" if level == "words" else r"\S+"
    ends = [found.end() for found in re.finditer(pattern, text)]
    return [sum(end <= token.span.end - 1 for end in ends) for token in tokens]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({3: "0-0 1:1"}, "train.links:4: '1:1' links no words. Write SOURCE-TARGET"),
        ({3: "0-0 99-1"}, "train.links:4: '99-1' links no words"),
        ({3: "0-99"}, "train.links:4: '0-99' links no words"),
        ({49: None}, "train.links: has fewer lines than there are training pairs. Give a line for"),
        ({50: "0-0"}, "train.links: has more lines than there are training pairs"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(change, message, tmp_path):
    lines = dict(enumerate(diagonals(template_pairs(60)[10:]))) | change
    lines = [line for line in lines.values() if line is not None]
    with pytest.raises(DataError) as caught:
        linked_run(tmp_path, lines)
    assert message in str(caught.value)


def test_an_invalid_line_of_links_can_be_skipped_with_its_pair(tmp_path):
    lines = diagonals(template_pairs(60)[10:])
    lines[3], lines[7] = "nonsense", "\udcff"
    run, cfg = linked_run(tmp_path, lines, "data.on_bad_line=skip")
    assert len(load_pairs(run, "train", load_tokenizers(run, cfg))) == len(lines) - 2
    assert (run.root / "corpus/train.links").read_text("utf-8").splitlines() == [
        *lines[:3],
        *lines[4:7],
        *lines[8:],
    ]


@pytest.mark.parametrize("prepared", [False, True])
def test_files_without_links_are_refused(prepared, tmp_path):
    """Even if data without links was prepared for a run with another objective."""
    names = write_corpus(tmp_path / "corpus", template_pairs(60), held_out=5)
    changes = [*names, "tokenizer.sampling=0", "tokenizer.vocab_size=90"]
    if prepared:
        changes.append(f"data.prepared={tmp_path / 'prepared'}")
        cfg = composed("debug", changes)
        with locked(begin(tmp_path / "other", cfg)) as run:
            prepare(run, cfg)
    cfg = composed("debug", [*changes, "objective=guided_alignment"])
    with (
        locked(begin(tmp_path / "run", cfg)) as run,
        pytest.raises(ConfigError, match="needs the word links of the training pairs"),
    ):
        prepare(run, cfg)
    assert not run.path("tokens").exists()


@pytest.mark.e2e
def test_a_run_goes_on_to_the_bit(tmp_path):
    """On the embedded corpus, with its own links; the model to hand on does not name them."""
    changes = ["objective=guided_alignment", "tokenizer.sampling=0", "trainer.validate_every=2"]
    changes += ["stages=[tokenize,train]", "trainer.precision=bf16"]
    whole = goes_on_to_the_bit(tmp_path, changes)
    assert config_of(RunDir.open(whole.path("model")).root).data.links is None
