"""Other cells and encoders than the paper's, between the same seams; `family_extension.py`."""

import itertools
import sys
from collections.abc import Iterator

import pytest
import torch
from conftest import (
    FAMILY,
    PAD,
    STACKED,
    follow,
    random_batch,
    random_pairs,
    tiny_model,
    tiny_transformer,
)
from test_cells import ENCODERS, RECURRENT
from test_search import RULES, random_sources, search
from torch.nn import functional

from seq2seq.config import registry
from seq2seq.config.schema import Backend, GatedConfig, LSTMConfig, Norm
from seq2seq.data.batching import collate
from seq2seq.decoding.forced import force_ids
from seq2seq.decoding.ranking import Ranking
from seq2seq.kernels.matmul import PackedLinear

OUTSIDE = {"coupled": ["cell"], "bag of words": ["encoder"], "both": ["cell", "encoder"]}
DECODERS = {
    f"{kind}, {name}": {"decoder": decoder, "cell": cell}
    for kind, decoder in STACKED.items()
    for name, cell in (("gated", GatedConfig()), ("lstm", LSTMConfig()))
}
INSIDE = DECODERS | {
    "coverage": {"attention": FAMILY["coverage"]},
    "coverage, between": {"decoder": STACKED["between"], "attention": FAMILY["coverage"]},
}
MEMBERS = [
    *((name, "additive") for name in (*RECURRENT, *DECODERS)),
    *itertools.product(OUTSIDE, ("additive", "general", "hard")),
]


@pytest.fixture(scope="module", autouse=True)
def outside() -> Iterator[dict[str, object]]:
    """The configs of the extension, which other tests do not see."""
    with pytest.MonkeyPatch.context() as patch:
        options = {group: dict(known) for group, known in registry.groups().items()}
        patch.setattr(registry, "_options", options)
        patch.setattr(registry, "_builders", dict(registry._builders))
        import family_extension

        yield {
            "cell": family_extension.CoupledConfig(),
            "encoder": family_extension.BagOfWordsConfig(),
        }
    del sys.modules["family_extension"]


def changes_of(name: str, outside: dict[str, object]) -> dict[str, object]:
    """Changes of `tiny_model` that make it this member of the family."""
    return (RECURRENT | ENCODERS | INSIDE).get(name) or {
        group: outside[group] for group in OUTSIDE.get(name, ())
    }


@pytest.mark.parametrize("name", [*RECURRENT, *ENCODERS, *OUTSIDE, *INSIDE])
def test_search_and_teacher_forcing_agree(name, outside):
    """State of two tensors, summary of another width, an attention with a state; ragged batches."""
    model = tiny_model(4, vocab=9, **changes_of(name, outside))
    sources = random_sources(4, [4, 1, 6], 9)
    for source, found in zip(sources, search(model, sources, RULES), strict=True):
        again = force_ids(model, [(source, h.ids) for h in found], Ranking())
        for h, forced in zip(found, again, strict=True):
            assert h.log_prob == pytest.approx(forced.log_prob, abs=1e-5)
            assert h.alpha == pytest.approx(forced.alpha, abs=1e-6)


@pytest.mark.parametrize("name", ["transformer", *INSIDE])
@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_search_with_packed_weights_finds_the_same(name, precision):
    """The copy shares the weights; the model itself is as before. Bfloat16 rounds the log-sum."""
    own = {"backend": Backend.auto, "vocab": 9}
    model = tiny_model(4, **own, **INSIDE[name]) if name in INSIDE else tiny_transformer(4, **own)
    sources = random_sources(4, [4, 1, 6], 9)
    with torch.autocast("cpu", precision, enabled=precision is torch.bfloat16):
        stepper = model.float().for_search()
        found, expected = (search(each, sources, RULES) for each in (stepper, model))
    models = stepper.model, model
    kinds = [[type(part) for part in each.modules()] for each in models]
    assert [PackedLinear in kind for kind in kinds] == [True, False]
    assert [*map(id, models[0].parameters())] == [*map(id, models[1].parameters())]
    for one, other in zip(found, expected, strict=True):
        assert [h.ids for h in one] == [h.ids for h in other]
        log_probs = ([h.log_prob for h in each] for each in (one, other))
        torch.testing.assert_close(
            *log_probs, rtol=0, atol=1e-5 if precision.itemsize == 4 else 0.05
        )


@pytest.mark.e2e
@pytest.mark.parametrize(("name", "kind"), MEMBERS)
def test_gradients_of_both_backends_are_equal(name, kind, outside):
    changes = {"attention": FAMILY[kind], **changes_of(name, outside)}
    models = [
        tiny_model(5, backend=backend, **changes) for backend in (Backend.reference, Backend.auto)
    ]
    batch, grads = random_batch(5), []
    for model in models:
        model.zero_grad()
        follow(model, batch).t.sum().backward()
        grads.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, msg=name)


@torch.no_grad()
@pytest.mark.parametrize("name", ["transformer", *INSIDE])
def test_steps_equal_the_whole_in_any_company_and_order(name):
    """Hypotheses of ragged sentences, reordered at every step as a beam would."""
    transformer = name == "transformer"
    model = tiny_transformer(8, norm=Norm.pre) if transformer else tiny_model(8, **INSIDE[name])
    rng = torch.Generator().manual_seed(8)
    pairs = random_pairs(8, ((4, 5), (1, 5), (6, 5)))
    batch = collate(pairs, PAD)
    state, y = model.begin(batch.src, batch.src_mask), torch.zeros(3, dtype=torch.int64)
    written: list[list[int]] = [[] for _ in range(3)]
    for i in range(5):
        slots = i + 1
        prediction, state = model.step(y, state)
        for row, words in enumerate(written):
            sentence = row // max(1, i)
            t = model.follow(
                *(x[sentence : sentence + 1] for x in (batch.src, batch.src_mask)),
                torch.tensor([[*words, 2]]),
                torch.ones(1, i + 1, dtype=torch.bool),
            ).t
            expected = functional.log_softmax(model.logits(t), dim=-1)[-1]
            torch.testing.assert_close(prediction.log_probs()[row], expected)
        rows = torch.cat(
            [
                sentence * max(1, i) + torch.randint(max(1, i), (slots,), generator=rng)
                for sentence in range(3)
            ]
        )
        state = state.select(torch.arange(3), slots, rows)
        y = torch.randint(2, 6, (3 * slots,), generator=rng)
        written = [
            [*written[row], word] for row, word in zip(rows.tolist(), y.tolist(), strict=True)
        ]
        # The source was not copied for hypotheses.
        assert len(state.source[0][0] if transformer else state.source.keys) == 3
