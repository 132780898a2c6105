"""Sentences to look at: those of the paper's Figure 3, with what RNNsearch-50 made of them there.

The paper shows tokenised text; here it is text as people write it, which is what a model reads.
Its long-sentence examples (5.2.2, appendix C) are sentences of newstest2014 of which only the
beginnings are known here: `docs/fidelity.md` says how to find them in a test set.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from seq2seq.data.batching import collate
from seq2seq.data.tokenizer import EOS, PAD, Tokenizer
from seq2seq.inference.alignment import Weights
from seq2seq.inference.translate import END
from seq2seq.model import RNNSearch
from seq2seq.settings import Examples


@dataclass(frozen=True)
class Example:
    """A sentence and a translation that was published for it."""

    label: str
    source: str
    target: str


EXAMPLES: Mapping[Examples, tuple[Example, ...]] = {
    Examples.figure3: (
        Example(
            "a",
            "The agreement on the European Economic Area was signed in August 1992.",
            "L'accord sur la zone économique européenne a été signé en août 1992.",
        ),
        Example(
            "b",
            "It should be noted that the marine environment is the least known of environments.",
            "Il convient de noter que l'environnement marin est le moins connu de l'environnement.",
        ),
        Example(
            "c",
            "Destruction of the equipment means that Syria can no longer produce new chemical "
            "weapons.",
            "La destruction de l'équipement signifie que la Syrie ne peut plus produire de "
            "nouvelles armes chimiques.",
        ),
        Example(
            "d",
            '"This will change my future with my family," the man said.',
            '"Cela va changer mon avenir avec ma famille", a dit l\'homme.',
        ),
    ),
}
"""To look for: in (a) "zone" points at "Area" and the words after it step back one at a time; in
(d) "l'" draws on "the" and on "man"."""


@dataclass(frozen=True)
class Forced:
    """Where a model looks while it is made to say a given translation."""

    source_tokens: tuple[str, ...]  # as in the text, unknown ones too; the end symbol included
    tokens: tuple[str, ...]  # the same
    alignment: Weights  # (len(tokens), len(source_tokens))


def force(model: RNNSearch, tokenizers: tuple[Tokenizer, Tokenizer], example: Example) -> Forced:
    """Lead a model in evaluation mode along a given translation."""
    assert not model.training
    source, target = tokenizers
    [src], [tgt] = source.encode([example.source]), target.encode([example.target])
    batch = collate([([*src, EOS], [*tgt, EOS])], PAD).to(next(model.parameters()).device)
    with torch.inference_mode():
        alpha = model(batch.src, batch.src_mask, batch.tgt, batch.tgt_mask).alpha[0]
    return Forced(
        source_tokens=(*source.tokens([example.source])[0], END),
        tokens=(*target.tokens([example.target])[0], END),
        alignment=alpha.float().cpu().numpy(),
    )
