"""The model can learn: fifty pairs by heart."""

import json

import pytest
from runs import composed, run_new, template_pairs, write_corpus

import seq2seq


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        [],
        ["model.backend=reference", "model.state_word=previous", "model.reset=after"],
    ],
    ids=["as the authors", "as printed, with the other gate"],
)
def test_fifty_pairs_are_learnt_by_heart(tmp_path, changes):
    """Sentences without system: each target is another source's, so only memory helps."""
    pairs = template_pairs(100, seed=3)
    nonsense = [(src, tgt) for (src, _), (_, tgt) in zip(pairs[:50], pairs[50:], strict=True)]
    names = write_corpus(tmp_path / "corpus", nonsense * 3, held_out=50)
    settings = [
        "tokenizer.vocab_size=120",
        "tokenizer.sampling=0",
        "scheduler=constant",
        "optimizer.lr=0.005",
        "model.embedding_size=32",
        "model.hidden_size=64",
        "model.embedding_dropout=0",
        "model.annotation_dropout=0",
        "model.readout_dropout=0",
        "trainer.batch_sentences=10",
        "trainer.batch_tokens=null",
        "trainer.label_smoothing=0",
        "trainer.max_updates=500",
        "trainer.validate_every=100",
        "trainer.ema_decay=0.9",
        "trainer.patience=null",
        "logging.tensorboard=false",
    ]
    run = run_new(tmp_path / "run", composed("debug", [*names, *settings, *changes]))
    scores = json.loads(run.path("scores.json").read_text())
    assert scores["sentences"] == 50
    assert scores["scores"]["BLEU"]["value"] > 95
    found = seq2seq.load(run.root).translate([src for src, _ in nonsense])
    assert sum(t.text == tgt for t, (_, tgt) in zip(found, nonsense, strict=True)) >= 47
