"""Models in other formats compute what they compute here: onnxruntime and CTranslate2 agree."""

import importlib.util
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import (
    FAMILY,
    PAD,
    SELF_ATTENTION,
    STACKED,
    VOCAB,
    random_batch,
    tiny_model,
    tiny_transformer,
)
from runs import assert_fails, environment, template_pairs

import seq2seq
from seq2seq.cli.export import main as export
from seq2seq.config.schema import (
    Activation,
    Attend,
    CorpusConfig,
    GatedConfig,
    LSTMConfig,
    MinGRUConfig,
    Norm,
    PositionKind,
    StackedDecoderConfig,
    StackedEncoderConfig,
    StateWord,
    TargetOrder,
    Tied,
)  # fmt: skip
from seq2seq.export import onnx
from seq2seq.export.bundle import Bundle, special
from seq2seq.export.ctranslate2 import save
from seq2seq.run.directory import RunDir
from seq2seq.run.errors import ConfigError
from seq2seq.run.models import NamedRun

EXTRA = ("onnxruntime", "onnxscript", "ctranslate2")
"""Imported where they are used: all workers read this file, and one runs it."""

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, EXTRA)), reason="exports need the extra `export`"
    ),
]

POST_GELU = {"norm": Norm.post, "activation": Activation.gelu}
LEARNED = {"positions": PositionKind.learned, "longest": 4}
MEMBERS = {name: partial(tiny_model, attention=cfg, align_size=6) for name, cfg in FAMILY.items()}
MEMBERS |= {
    "transformer": tiny_transformer,
    "transformer, learned, post, tied": partial(
        tiny_transformer, tied=Tied.target, **LEARNED, **POST_GELU
    ),
    "transformer decoder": partial(tiny_transformer, self_attention=False),
    "self-attention encoder": partial(tiny_model, encoder=SELF_ATTENTION, embedding_size=4),
    "previous, lstm": partial(
        tiny_model, state_word=StateWord.previous, cell=LSTMConfig(layer_norm=True, transitions=2)
    ),
    "stacked encoder, layer norm": partial(
        tiny_model,
        encoder=StackedEncoderConfig(layers=2, residual=True),
        cell=GatedConfig(layer_norm=True, transitions=2),
    ),
    "min_gru": partial(
        tiny_model, cell=MinGRUConfig(), decoder=StackedDecoderConfig(attend=Attend.top)
    ),
}
MEMBERS |= {f"stacked, {name}": partial(tiny_model, decoder=cfg) for name, cfg in STACKED.items()}
QUICK = {"additive", "transformer"}


def translated(directory, lines) -> list[str]:
    """What the decoder of an export writes."""
    text = "".join(f"{line}\n" for line in lines).encode()
    done = subprocess.run(
        [sys.executable, directory / "decode_onnx.py"], check=True, capture_output=True, input=text,
        env=environment(PYTHONUTF8="1"),
    )  # fmt: skip
    return done.stdout.decode().splitlines()


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(make, id=name, marks=() if name in QUICK else pytest.mark.slow)
        for name, make in MEMBERS.items()
    ],
)
def test_members_compute_and_translate_as_torch_does(make, run, tmp_path):
    """The run lends its vocabularies; sources are ragged and of other sizes than those traced."""
    bundle = Bundle(NamedRun(run))
    model, bundle.model = (make(3, vocab=len(bundle.target)).float() for _ in range(2))
    cfg = bundle.pretrained.config
    cfg.decode = replace(cfg.decode, beam_size=1, max_ratio=1.0, extra_steps=2)
    onnx.save(bundle, RunDir(tmp_path))
    import onnxruntime

    onnxruntime.set_default_logger_severity(3)
    sessions = {
        name: onnxruntime.InferenceSession(tmp_path / f"{name}.onnx") for name in ("begin", "step")
    }

    def outputs_of(name, **inputs):
        names = [output.name for output in sessions[name].get_outputs()]
        found = sessions[name].run(None, {key: np.asarray(x) for key, x in inputs.items()})
        return dict(zip(names, found, strict=True))

    batch, rng = random_batch(3), np.random.default_rng(0)
    y = torch.full((batch.num_sentences,), PAD)
    found = outputs_of("begin", src=batch.src, mask=batch.src_mask)
    held = {key: x for key, x in found.items() if key.startswith("state.")}
    with torch.no_grad():
        state = model.begin(batch.src, batch.src_mask)
        for _ in range(6):
            prediction, state = model.step(y, state)
            np.testing.assert_allclose(found["log_probs"], prediction.log_probs(), atol=1e-4)
            np.testing.assert_allclose(found["alpha"], prediction.alpha, atol=1e-4)
            y = torch.tensor(rng.integers(2, VOCAB, batch.num_sentences))
            found = outputs_of("step", y=y, **held)
            held |= {k.removeprefix("next."): x for k, x in found.items() if "state." in k}

    bundle.pretrained.model = model
    lines = [source for source, _ in template_pairs(200, seed=5)]
    assert translated(tmp_path, lines) == [x.text for x in bundle.pretrained.translate(lines)]


@pytest.fixture(scope="module", name="exported")
def exported_to_onnx(run, tmp_path_factory) -> Path:
    """The shared run, exported."""
    out = tmp_path_factory.mktemp("exported") / "new" / "onnx"
    export([str(run), str(out), "--format", "onnx"])
    return out


def test_forty_lines_translate_as_decode_does_at_beam_1(run, exported):
    names = {"begin.onnx", "step.onnx", "export.json", "decode_onnx.py"}
    assert {path.name for path in exported.iterdir()} == names | {"source.model", "target.model"}
    sentences = [source for source, _ in template_pairs(200, seed=5)]
    sentences += ["", " ", "The  cat\u2581sees \u00e9 e\u0301 ?"]
    model = seq2seq.load(run, ["decode.beam_size=1"])
    assert translated(exported, sentences) == [x.text for x in model.translate(sentences)]
    decoder = (exported / "decode_onnx.py").read_text("utf-8")
    assert "seq2seq" not in decoder
    assert len(decoder.splitlines()) <= 40


@pytest.mark.parametrize(
    "changes",
    [{}, LEARNED, {"tied": Tied.target}, {"tied": Tied.target, **POST_GELU}],
    ids=["pre", "learned", "tied", "tied, post, gelu"],
)
def test_ctranslate2_scores_as_torch_does(changes, layers_run, tmp_path, monkeypatch):
    """The run lends its vocabularies; weights are random and all alive."""
    bundle = Bundle(NamedRun(layers_run))
    size = len(bundle.target)
    own = tiny_transformer(3, vocab=size, **changes).float()
    bundle.model = bundle.pretrained.model = own
    with torch.no_grad():
        own.decoder.W_o.bias[:2] = -50.0  # no padding and no unknown symbol, as after training
    save(bundle, RunDir(tmp_path))
    import ctranslate2

    engine = ctranslate2.Translator(str(tmp_path), device="cpu")

    cfg = bundle.pretrained.config
    limits = {"beam_size": 1, "min_ratio": 0.0, "max_ratio": 2.0, "extra_steps": 0}
    cfg.decode = replace(cfg.decode, **limits)
    source, target = bundle.pretrained.tokenizers
    for line in ("The small cat sleeps.", "A dog sees the red car of the old teacher."):
        pieces = source.pieces(source.encode([line])[0])
        [ours] = bundle.pretrained.translate([line])
        best = ours.candidates[0]
        [theirs] = engine.translate_batch(
            [pieces], beam_size=1, return_scores=True, length_penalty=0,
            min_decoding_length=0, max_decoding_length=2 * (len(pieces) + 1),
        )  # fmt: skip
        assert theirs.hypotheses[0] == [x for x in best.tokens if x != "</s>"]
        assert theirs.scores[0] == pytest.approx(best.log_prob, abs=1e-3)
        reference = target.pieces(target.encode(["Le petit chat dort."])[0])
        [scored] = engine.score_batch([pieces], [reference])
        [forced] = bundle.pretrained.force([(line, "Le petit chat dort.")])
        expected = forced.candidates[0].token_log_probs
        np.testing.assert_allclose(scored.log_probs, expected, atol=1e-4)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("it writes targets from right to left", {"target_order": TargetOrder.right_to_left}),
        ("tags select", {"corpora": [CorpusConfig(target_language=x) for x in ("fr", "de")]}),
        ("it carries placeholders over", {"placeholders": ["url"]}),
    ],
)
def test_ctranslate2_refuses_what_it_would_decode_wrongly(reason, changes, layers_run, tmp_path):
    bundle = Bundle(NamedRun(layers_run))
    assert bundle.special is None
    cfg = bundle.pretrained.config
    cfg.data = replace(cfg.data, **changes)
    bundle.special = special(cfg, *bundle.pretrained.tokenizers)
    with pytest.raises(ConfigError, match=f"cannot translate with this model: {reason}"):
        save(bundle, RunDir(tmp_path))
    assert not any(tmp_path.iterdir())


def test_ctranslate2_knows_only_transformers(script, run, tmp_path):
    result = script("export", run, tmp_path / "out", "--format", "ctranslate2")
    assert_fails(result, 1, "config: CTranslate2 has no RecurrentEncoder, only Transformers. ")
    assert not any(tmp_path.iterdir())


def test_what_torch_cannot_export_is_one_line(script, run, tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise torch.onnx.OnnxExporterError("no\nsuch operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    result = script("export", run, tmp_path / "out", "--format", "onnx")
    assert_fails(result, 1, "torch cannot export this model to ONNX (no such operator). ")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["RUN+RUN", "OUT", "--format", "onnx"], 2, "is an ensemble. Export its runs one by one."),
        (["RUN", "RUN", "--format", "onnx"], 2, "exists. Name a new directory."),
    ],
)
def test_what_cannot_be_meant_is_refused(script, run, tmp_path, arguments, code, message):
    places = {"RUN": str(run), "OUT": str(tmp_path / "out"), "RUN+RUN": f"{run}+{run}"}
    assert_fails(script("export", *(places.get(x, x) for x in arguments)), code, message)


def test_a_missing_package_is_named(script, run, tmp_path, monkeypatch):
    from importlib import metadata

    def version(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)
    result = script("export", run, tmp_path / "out", "--format", "ctranslate2")
    assert_fails(result, 5, "ctranslate2: is not installed. Install what exporting needs: ")
