"""The embedded corpus: generated English-French pairs with gold word links; no download.

A synchronous grammar (Aho & Ullman, 1969; Chiang, 2007) generates both sentences at once, and each
French word records the English words it translates. The content is data in `tables/`: rules.txt
has the sentence patterns and explains the notation, tenses.txt the verb groups (does not see, will
have seen), the other tables words and their forms. One more line adds a noun or a pattern.

Read in this order: `phrase` (two languages at once), `rules` (a line of a table), `verbs`,
`lexicon`, `grammar` (a sentence of a given length), `spelling`, `corpus` (splits and lengths).

The English sentence determines every French word: `you` is always the plural vous, `they` always
ils, `it` always le as an object and il of the weather; I, we and you are masculine.
"""

from seq2seq.data.toy.corpus import generate, split_of

__all__ = ["generate", "split_of"]
