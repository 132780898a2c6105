"""The sentences of the paper's Figure 3, with the translations by RNNsearch-50 that it prints.

The paper shows tokenised text; here it is text as people write it, which is what a model reads.
Its long-sentence examples (5.2.2, appendix C) are sentences of newstest2014 of which only the
beginnings are known here: `docs/fidelity.md` says how to find them in a test set.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from seq2seq.config.schema import Examples


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
"""Worth seeing: in (a) "zone" attends to "Area" and the words after it step back one at a time; in
(d) "l'" attends to "the" and to "man"."""
