"""Every kind of attention through the whole pipeline: trained, decoded, scored, drawn."""

import math
from pathlib import Path

import pytest
from runs import composed, run_new, template_pairs, write_corpus

from seq2seq.config.registry import groups
from seq2seq.decoding.pretrained import Pretrained, load
from seq2seq.decoding.translate import translate
from seq2seq.run.reading import read_json

KINDS = {kind: [f"attention={kind}", "model.align_size=24"] for kind in groups()["attention"]}
TRANSFORMER = ["encoder=self_attention", "decoder=transformer", "attention=layers"]
TRANSFORMER += ["model.embedding_size=32", "model.hidden_size=32", "model.tied=all"]
TRANSFORMER += ["tokenizer.joint=true", "attention.heads=4", "encoder.norm=pre"]
TRANSFORMER += [
    f"{side}.{key}" for side in ("encoder", "decoder") for key in ("layers=2", "inner_size=64")
]
STACKED = ["decoder=stacked", "decoder.layers=2", "decoder.attend=top"]
STACKED += ["decoder.input_feeding=true", "decoder.dropout=0.2", "decoder.residual=true"]

KINDS["layers"] = TRANSFORMER
KINDS |= {
    "stacked decoder": STACKED,
    "lstm": ["cell=lstm", "cell.layer_norm=true", "cell.recurrent_dropout=0.2"],
    "stacked": ["encoder=stacked", "encoder.residual=true", "encoder.dropout=0.2"],
    "transitions": ["encoder=stacked", "encoder.bidirectional=all", "cell.transitions=2"],
    "min_gru": ["cell=min_gru", *(text for text in TRANSFORMER if "encoder" not in text)],
}
"""Overrides that make a run one of each member of the family."""


@pytest.mark.e2e
def test_hard_attention_takes_another_context_when_asked_later(tmp_path: Path):
    """The choice is one of test time: it needs no new training."""
    names = write_corpus(tmp_path / "corpus", template_pairs(120))
    few = ["trainer.max_updates=4", "trainer.validate_every=4", "tokenizer.vocab_size=110"]
    cfg = composed("debug", [*names, *few, "attention=hard", "stages=[tokenize,train]"])
    run = run_new(tmp_path / "run", cfg)
    line = ["the cat sees the dog ."]
    [likely], [expected] = (
        load(run.root, [f"attention.inference={how}"]).translate(line)
        for how in ("most_likely", "expectation")
    )
    assert likely.candidates[0].log_prob != expected.candidates[0].log_prob


@pytest.mark.e2e
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_of_every_kind(kind: str, tmp_path: Path):
    names = write_corpus(tmp_path / "corpus", template_pairs(120))
    few = ["trainer.max_updates=4", "trainer.validate_every=4", "tokenizer.vocab_size=110"]
    cfg = composed("debug", [*names, *few, *KINDS[kind]])
    run = run_new(tmp_path / "run", cfg)
    assert math.isfinite(read_json(run.path("scores.json"))["scores"]["BLEU"]["value"])
    pictures = sorted(path.name for path in run.path("heatmaps").glob("*.png"))
    assert pictures == ["test-0001.png", "test-0002.png"]
    # The weights that are drawn: one row a token, over the source tokens.
    model = Pretrained(run, cfg)
    lines = ["the cat sees the dog .", "the bear helps the teacher often ."]
    alone = [t for line in lines for t in model.translate([line])]
    together = list(translate(model.model, model.tokenizers, lines, cfg.decode))
    for one, other in zip(alone, together, strict=True):
        assert one.text == other.text
        best = other.candidates[0]
        assert best.alignment.shape == (len(best.tokens), len(other.source_tokens))
        assert best.alignment == pytest.approx(one.candidates[0].alignment, abs=1e-6)
        rows = best.alignment.sum(axis=1)
        assert (rows <= 1 + 1e-5).all()
        if kind != "local":  # its Gaussian is not normalised again
            assert rows == pytest.approx(1, abs=1e-5)
