"""The embedded corpus: English-French pairs with gold word links, generated, never downloaded.

Read in this order: `phrase` (two languages at once), `nouns`, `verbs`, `clauses`, `sentences`,
`corpus` (splits and lengths); the words themselves are tables in `lexicon`.

Every French word can be told from the English sentence: `you` is always the plural vous, `they`
always ils, `it` always le as an object and il of the weather; I, we and you are masculine.
"""

from seq2seq.data.grammar.corpus import generate, split_of

__all__ = ["generate", "split_of"]
