"""The embedded corpus: English-French pairs with gold word links, generated, never downloaded.

A synchronous grammar (Aho & Ullman, 1969; Chiang, 2007) makes both sentences at once, and a French
word remembers the words it translates. What can be said is data, in `tables/`: rules.txt has the
patterns of sentences and explains the notation, tenses.txt the verb groups (does not see, will
have seen), the others words and their forms. A line there adds a noun or a pattern.

Read in this order: `phrase` (two languages at once), `rules` (a line of a table), `verbs`,
`lexicon`, `grammar` (a sentence of a given length), `spelling`, `corpus` (splits and lengths).

Every French word can be told from the English sentence: `you` is always the plural vous, `they`
always ils, `it` always le as an object and il of the weather; I, we and you are masculine.
"""

from seq2seq.data.toy.corpus import generate, split_of

__all__ = ["generate", "split_of"]
