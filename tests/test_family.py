"""Other cells and encoders than the paper's, between the same seams; `family_extension.py`."""

import itertools
import sys
from collections.abc import Iterator

import pytest
import torch
from conftest import FAMILY, follow, random_batch, tiny_model
from test_cells import ENCODERS, RECURRENT
from test_search import RULES, random_sources, search

from seq2seq.config import registry
from seq2seq.config.schema import Backend
from seq2seq.decoding.forced import force_ids
from seq2seq.model.attention import AdditiveAttention, expectation
from seq2seq.model.protocols import Attended

OUTSIDE = {"coupled": ["cell"], "bag of words": ["encoder"], "both": ["cell", "encoder"]}
MEMBERS = [
    *((name, "additive") for name in RECURRENT),
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


class Coverage(AdditiveAttention):
    """What was attended to counts less from then on: an attention with a state of its own."""

    def forward(self, query, source, state=None) -> Attended:
        past = 0.0 if state is None else state
        alpha = self.weigh(query, source) * torch.exp(-torch.as_tensor(past))
        alpha = alpha / alpha.sum(dim=-1, keepdim=True)
        return Attended(expectation(alpha, source), alpha, past + alpha)


def changes_of(name: str, outside: dict[str, object]) -> dict[str, object]:
    """Changes of `tiny_model` that make it this member of the family."""
    return (RECURRENT | ENCODERS).get(name) or {
        group: outside[group] for group in OUTSIDE.get(name, ())
    }


@pytest.mark.parametrize("name", [*RECURRENT, *ENCODERS, *OUTSIDE, "coverage"])
def test_search_and_teacher_forcing_agree(name, outside):
    """State of two tensors, summary of another width, an attention with a state; ragged batches."""
    model = tiny_model(4, vocab=9, **changes_of(name, outside))
    if name == "coverage":
        model.decoder.attention.__class__ = Coverage
    sources = random_sources(4, [4, 1, 6], 9)
    for source, found in zip(sources, search(model, sources, RULES), strict=True):
        again = force_ids(model, [(source, h.ids) for h in found], 0.0)
        for h, forced in zip(found, again, strict=True):
            assert h.log_prob == pytest.approx(forced.log_prob, abs=1e-5)
            assert h.alpha == pytest.approx(forced.alpha, abs=1e-6)


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
