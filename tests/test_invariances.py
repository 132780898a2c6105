"""What must not change a result: padding, batch mates, order, words still to come."""

import pytest
import torch
from conftest import (
    PAD,
    STACKED,
    VOCAB,
    per_sentence,
    random_batch,
    random_pairs,
    run,
    tiny_model,
)
from test_cells import ENCODERS, RECURRENT

from seq2seq.config.schema import Reset, StackedEncoderConfig, StateWord
from seq2seq.data.batching import Batch, collate
from seq2seq.model.dropout import Dropout

TOLERANCE = 1e-12  # float64
SEEDS = (1, 2)
READINGS = {
    f"{state_word}-{reset}": {"state_word": state_word, "reset": reset}
    for state_word in StateWord
    for reset in Reset
}
DECODERS = {name: {"decoder": decoder} for name, decoder in STACKED.items()}
MEMBERS = READINGS | RECURRENT | ENCODERS | DECODERS


def close(actual: torch.Tensor, expected: torch.Tensor, note: str) -> None:
    torch.testing.assert_close(
        actual, expected, rtol=0, atol=TOLERANCE, msg=lambda text: f"{note}: {text}"
    )


def by_sentence(model, batch: Batch) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """log p (Ty, K) and alpha (Ty, Tx) of each sentence, padding cut off."""
    with torch.no_grad():
        log_p, _, alpha = run(model, batch)
    cut = [
        alpha[b, : int(batch.tgt_mask[b].sum()), : int(batch.src_mask[b].sum())]
        for b in range(batch.num_sentences)
    ]
    return list(zip(per_sentence(log_p, batch), cut, strict=True))


def same(actual, expected, note: str) -> None:
    for b, ((log_p, alpha), (log_p2, alpha2)) in enumerate(zip(actual, expected, strict=True)):
        close(log_p, log_p2, f"{note}, sentence {b}, log p")
        close(alpha, alpha2, f"{note}, sentence {b}, alpha")


def padded(batch: Batch, columns: int, ids: torch.Tensor | None = None) -> Batch:
    """More padding on both sides, and other ids on all of it."""

    def wider(side: torch.Tensor, value: int) -> torch.Tensor:
        return torch.nn.functional.pad(side, (0, columns), value=value)

    src, src_mask = wider(batch.src, PAD), wider(batch.src_mask, False)
    tgt, tgt_mask = wider(batch.tgt, PAD), wider(batch.tgt_mask, False)
    if ids is not None:
        src = torch.where(src_mask, src, ids[: len(src), : src.shape[1]])
        tgt = torch.where(tgt_mask, tgt, ids[: len(tgt), : tgt.shape[1]])
    return Batch(src, src_mask, tgt, tgt_mask)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("changes", MEMBERS.values(), ids=MEMBERS)
def test_batch_mates_change_nothing(seed, changes):
    model = tiny_model(seed, **changes)
    pairs = random_pairs(seed)
    together = by_sentence(model, collate(pairs, PAD))
    alone = [by_sentence(model, collate([pair], PAD))[0] for pair in pairs]
    same(together, alone, f"seed {seed}")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("changes", [{}, *DECODERS.values()], ids=["", *DECODERS])
def test_padding_changes_nothing(seed, changes):
    model, batch = tiny_model(seed, **changes), random_batch(seed)
    expected = by_sentence(model, batch)
    same(by_sentence(model, padded(batch, 3)), expected, f"seed {seed}, wider")
    garbage = torch.randint(1, VOCAB, (4, 20), generator=torch.Generator().manual_seed(seed))
    dirty = padded(batch, 3, garbage)
    assert (dirty.src[~dirty.src_mask] != PAD).all()
    same(by_sentence(model, dirty), expected, f"seed {seed}, filled with words")


DROPOUTS = {
    "embedding_dropout": ["encoder.embedding_dropout", "decoder.embedding_dropout"],
    "word_dropout": ["encoder.word_dropout", "decoder.word_dropout"],
    "annotation_dropout": ["encoder.annotation_dropout"],
    "readout_dropout": ["decoder.readout_dropout"],
    "recurrent_dropout": [
        f"{unit}.recurrent_dropout"
        for unit in ("encoder.forward_unit", "encoder.backward_unit", "decoder.unit")
    ],
}
OF_A_STACK = {
    "dropout": ["encoder.layers.1.dropout"],
    "annotation_dropout": ["encoder.annotation_dropout"],
}


@pytest.mark.parametrize(
    ("setting", "places", "stacked"),
    [*((*item, False) for item in DROPOUTS.items()), *((*i, True) for i in OF_A_STACK.items())],
)
def test_dropout_acts_in_training_alone(setting, places, stacked):
    def model_with(**values):
        return tiny_model(1, **({"encoder": StackedEncoderConfig(**values)} if stacked else values))

    batch = random_batch(1)
    expected = by_sentence(model_with(), batch)
    for place in places:
        model = model_with(**{setting: 0.5})
        same(by_sentence(model, batch), expected, place)
        model.train()
        rates = {name: m.p for name, m in model.named_modules() if isinstance(m, Dropout)}
        assert sorted(name for name, p in rates.items() if p == 0.5) == sorted(places)
        for name, module in model.named_modules():  # each place by itself
            if isinstance(module, Dropout) and name != place:
                module.p = 0.0
        first, second = (run(model, batch, seed)[0] for seed in range(2))
        assert not torch.equal(first, second), f"{place} does nothing in training"
        model.eval()
        same(by_sentence(model, batch), expected, place)
