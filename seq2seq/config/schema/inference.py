"""Settings of beam search, sampling, scores and figures."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from seq2seq.config.schema.ranges import at_least, number
from seq2seq.run.errors import ConfigError

# How the members of an ensemble are combined: the mean of the probabilities of each next word, or
# of their logarithms, renormalised
Mean = StrEnum("Mean", "probabilities log_probs")

# The divisor of scores, to the power of `length_penalty`: the number of tokens, end symbol
# included, or (5 + tokens) / 6 (Wu et al. 2016, arXiv:1609.08144)
LengthNorm = StrEnum("LengthNorm", "tokens gnmt")

# The compute dtype of matmuls
DecodePrecision = StrEnum("DecodePrecision", "fp32 bf16 int8")

# The sentence-level score by which translations are compared
Utility = StrEnum("Utility", "bleu chrf")


@dataclass(kw_only=True)
class DecodeConfig:
    """Beam search; the defaults are the authors' code, as the paper gives no details."""

    beam_size: int = number(1, 1000, default=10)  # 10 in the authors' test script
    # Scores are divided by (tokens + end symbol) to this power; 0 is the sum, 1 the mean
    length_penalty: float = at_least(0, default=0.0)
    length_norm: LengthNorm = LengthNorm.tokens
    # Weight of the sum over source tokens of log min(1, attention to the token), which is added to
    # scores (Wu et al. 2016, Eq. 14); 0.2 there
    coverage_penalty: float = at_least(0, default=0.0)
    # No n-gram of vocabulary pieces of this size may repeat in a translation; null is off
    no_repeat_ngram: int | None = at_least(1, default=None)
    # The beam is split into groups; at each step, later groups avoid the words of earlier ones
    # (diverse beam search, Vijayakumar et al. 2016, arXiv:1610.02424)
    beam_groups: int = number(1, 1000, default=1)
    # Subtracted from a word's log-probability for each time that earlier groups have chosen it at
    # this step; 0.5 there
    diversity: float = at_least(0, default=0.0)
    # The end symbol is forbidden before this fraction of the source length (end included)
    min_ratio: float = at_least(0, default=0.5)
    # Maximal number of steps, as a multiple of the source length (end included)
    max_ratio: float = number(0, 100, default=3.0, open_ends="low")
    # Steps allowed beyond `max_ratio`, for short sources
    extra_steps: int = number(0, 10_000, default=0)
    forbid_unknown: bool = False  # never emit the unknown symbol
    # Replace an unknown symbol by the source token that it attends to most, as Luong et al. 2015
    # (arXiv:1410.8206); the authors do not.
    replace_unknown: bool = False
    # Hypotheses kept per sentence, with distinct texts, at most `beam_size`; or the number of
    # samples, which may be equal
    n_best: int = number(1, 100_000, default=1)
    batch_sentences: int = number(1, 100_000, default=32)  # sentences translated together
    # `bf16` is faster where the hardware supports it, and has 8 bits of precision. Probabilities of
    # the chosen words are computed in float32. `int8` does the matmuls of each step in 8-bit whole
    # numbers, and what is left as bf16: for the paper's model, on a CPU with AVX512-VNNI.
    precision: DecodePrecision = DecodePrecision.fp32
    # Search among this many target words, chosen for each sentence by its source words; null: among
    # all. Probabilities are normalised over them. Training validates among all.
    shortlist: int | None = at_least(10, default=None)
    # Longer sources, and those above 131,072 characters, are cut with a warning; so are given
    # translations in forced decoding.
    max_source_tokens: int = number(1, 100_000, default=500)
    # Sample translations word by word from the model instead of searching. Length limits and
    # `forbid_unknown` still apply; with `min_ratio=0` the model decides where to end.
    sample: bool = False
    # Seed of the draws, which are keyed by seed, line number, sample number and step
    seed: int = at_least(0, default=1)
    # Log-probabilities are divided by it before a draw: below 1, likely words become likelier
    temperature: float = number(0, 1000, default=1.0, open_ends="low")
    # Draw from the k likeliest words (Fan et al. 2018, arXiv:1805.04833); null: from all
    top_k: int | None = at_least(1, default=None)
    # Of these, draw from the fewest likeliest words with this total probability (Holtzman et al.
    # 2020, arXiv:1904.09751)
    top_p: float | None = number(0, 1, default=None, open_ends="low")
    # Order the `n_best` by their agreement with the others (minimum Bayes risk), weighted by
    # probability, or equally for samples; null orders by score
    mbr: Utility | None = None
    # How an ensemble RUN_A+RUN_B is combined; its other `decode` settings are those of the first
    ensemble: Mean = Mean.probabilities
    # Weights of its members, in order; null weights them equally. Only ratios matter.
    weights: list[float] | None = None

    def check(self, config: Any) -> None:
        """Check that the settings of search, sampling and ensembles are compatible."""
        # What a search returns.
        if self.n_best > self.beam_size and not self.sample:
            what = f"decode.n_best={self.n_best} is above decode.beam_size={self.beam_size}"
            raise ConfigError("config", what, "Widen the beam.")
        if self.replace_unknown and self.forbid_unknown:
            what = "decode.replace_unknown has nothing to replace with decode.forbid_unknown=true"
            raise ConfigError("config", what, "Set one of them to false.")
        # Settings of sampling alone, and of beam search alone.
        cuts = {"temperature": self.temperature != 1.0, "top_k": self.top_k, "top_p": self.top_p}
        for name in (name for name, given in cuts.items() if given and not self.sample):
            unused = f"decode.{name} needs sampling"
            raise ConfigError("config", unused, "Add decode.sample=true.")
        searching = {"no_repeat_ngram": self.no_repeat_ngram, "shortlist": self.shortlist}
        searching |= {"beam_groups": self.beam_groups > 1}
        for key in (key for key, given in searching.items() if given and self.sample):
            what = f"decode.{key} is for beam search"
            raise ConfigError("config", what, "Leave decode.sample out.")
        if self.shortlist is not None and config.data.placeholders:
            what = "decode.shortlist does not go with data.placeholders"
            raise ConfigError("config", what, "Use decode.shortlist=null.")
        # Diverse beams, minimum Bayes risk, ensembles.
        if (self.beam_groups > 1) != (self.diversity > 0):
            what = f"decode.beam_groups={self.beam_groups} and decode.diversity={self.diversity:g}"
            alone = "Set both or none, as in decode.beam_groups=4 decode.diversity=0.5."
            raise ConfigError("config", f"{what} cannot be combined", alone)
        if self.beam_groups > self.beam_size:
            what = f"decode.beam_groups={self.beam_groups} is above decode.beam_size"
            raise ConfigError("config", f"{what}={self.beam_size}", "Widen the beam.")
        if self.mbr is not None and self.n_best < 2:
            alone = f"decode.mbr={self.mbr} has nothing to choose from with decode.n_best=1"
            raise ConfigError("config", alone, "Raise decode.n_best.")
        if not all(0 < weight < math.inf for weight in self.weights or ()):
            idle = f"decode.weights={self.weights} must all be above 0"
            raise ConfigError("config", idle, "Leave out runs that should have no weight.")


# Named sets of example sentences; `figure3` is English-French
Examples = StrEnum("Examples", "figure3")


@dataclass(kw_only=True)
class EvaluateConfig:
    """Scores and figures of the test set."""

    # Numbers of the test sentences to draw, from 1
    heatmaps: list[int] = field(default_factory=lambda: [1, 2, 3, 4])
    # Sets of sentences to translate and draw in addition to the test set
    examples: list[Examples] = field(default_factory=list)
    heatmap_words: bool = True  # whole words in the figures, not subwords
    # Font file for scripts that the default fonts lack; null finds an installed one
    heatmap_font: str | None = None
    # sacreBLEU tokenizer: 13a, zh, ja-mecab, ko-mecab, char, ..; null selects it by the target
    # language
    bleu_tokenizer: str | None = None

    def check(self, config: Any) -> None:
        """Check that the sentences to draw can exist."""
        if any(number < 1 for number in self.heatmaps):
            what = f"evaluate.heatmaps={self.heatmaps} is not a sentence number"
            raise ConfigError("config", what, "Sentences count from 1.")
        languages = ["-".join(direction) for direction in config.data.directions]
        if Examples.figure3 in self.examples and "en-fr" not in languages:
            what = f"evaluate.examples=[figure3] is English-French, data is {', '.join(languages)}"
            raise ConfigError("config", what, "Use evaluate.examples=[].")
