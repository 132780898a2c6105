"""Beam search, scores and figures."""

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from seq2seq.config.schema.ranges import at_least, number
from seq2seq.config.schema.training import Precision
from seq2seq.run.errors import ConfigError

# What the members of an ensemble are mixed by: the mean of the probabilities of each next word, or
# of their logarithms, made to sum to 1 again
Mean = StrEnum("Mean", "probabilities log_probs")

# What scores are divided by, to the power of `length_penalty`: the number of tokens, end symbol
# included, or (5 + tokens) / 6 (Wu et al. 2016, arXiv:1609.08144)
LengthNorm = StrEnum("LengthNorm", "tokens gnmt")

# What translations are compared by, sentence by sentence
Utility = StrEnum("Utility", "bleu chrf")


@dataclass(kw_only=True)
class DecodeConfig:
    """Beam search; the defaults are the authors' code, as the paper gives no details."""

    beam_size: int = number(1, 1000, default=10)  # 10 in the authors' test script
    # Scores are divided by (tokens + end symbol) to this power; 0 sums, 1 averages
    length_penalty: float = at_least(0, default=0.0)
    length_norm: LengthNorm = LengthNorm.tokens
    # Times the sum over source tokens of log min(1, attention paid to it), added to scores (Wu et
    # al. 2016, Eq. 14); 0.2 there
    coverage_penalty: float = at_least(0, default=0.0)
    # No sequence of so many pieces of the vocabulary stands twice in a translation; null: it may
    no_repeat_ngram: int | None = at_least(1, default=None)
    # The beam is shared out to groups, of which the later avoid words of the earlier, step by step
    # (diverse beam search, Vijayakumar et al. 2016, arXiv:1610.02424)
    beam_groups: int = number(1, 1000, default=1)
    # Taken off log-probabilities for each time that earlier groups have chosen a word at this step,
    # before a group chooses its own; 0.5 there
    diversity: float = at_least(0, default=0.0)
    # The end symbol is forbidden before this share of the source length (end included)
    min_ratio: float = at_least(0, default=0.5)
    # At most this many times the source length (end included) in steps
    max_ratio: float = number(0, 100, default=3.0, open_ends="low")
    # Steps allowed beyond `max_ratio`, for short sources
    extra_steps: int = number(0, 10_000, default=0)
    forbid_unknown: bool = False  # never emit the unknown symbol
    # Write the source token that it attends to most in place of an unknown symbol, as Luong et al.
    # 2015 (arXiv:1410.8206); the authors do not.
    replace_unknown: bool = False
    # Hypotheses kept per sentence, of different texts, at most `beam_size`; or samples drawn, which
    # may be equal
    n_best: int = number(1, 100_000, default=1)
    batch_sentences: int = number(1, 100_000, default=32)
    # Of matmuls; `bf16` is faster where the processor has it, and rounds to 8 bits. Probabilities
    # of the words that are chosen come from float32 ones.
    precision: Precision = Precision.fp32
    # A longer source is cut, with a warning; and so is one above 131,072 characters. A given
    # translation that is scored is cut at as many.
    max_source_tokens: int = number(1, 100_000, default=500)
    # Draw translations word by word in place of the search, by the model's probabilities. What is
    # said of lengths and of the unknown symbol holds; `min_ratio=0` leaves the ends to the model.
    sample: bool = False
    # Of the draws, which are keyed by it, the number of the line, that of the sample and the step
    seed: int = at_least(0, default=1)
    # Log-probabilities are divided by it before a draw: below 1 likely words get likelier
    temperature: float = number(0, 1000, default=1.0, open_ends="low")
    # Draw from so many likeliest words (Fan et al. 2018, arXiv:1805.04833); null: from all
    top_k: int | None = at_least(1, default=None)
    # Of these, from as few likeliest as have this probability (Holtzman et al. 2020,
    # arXiv:1904.09751)
    top_p: float | None = number(0, 1, default=None, open_ends="low")
    # Order the `n_best` by how well they agree with the others (minimum Bayes risk), which count by
    # their probabilities, samples alike; null: by score
    mbr: Utility | None = None
    # Of RUN_A+RUN_B, whose other settings of `decode` are those of the first
    ensemble: Mean = Mean.probabilities
    # Of its members, in their order; null: all alike. Only their ratios matter.
    weights: list[float] | None = None

    def check(self, _config: Any) -> None:
        """See that the beam holds what is asked of it."""
        if self.n_best > self.beam_size and not self.sample:
            what = f"decode.n_best={self.n_best} is above decode.beam_size={self.beam_size}"
            raise ConfigError("config", what, "Widen the beam.")
        if self.replace_unknown and self.forbid_unknown:
            what = "decode.replace_unknown has nothing to replace with decode.forbid_unknown=true"
            raise ConfigError("config", what, "Set one of them to false.")
        cuts = {"temperature": self.temperature != 1.0, "top_k": self.top_k, "top_p": self.top_p}
        for name in (name for name, given in cuts.items() if given and not self.sample):
            unused = f"decode.{name} is for samples"
            raise ConfigError("config", unused, "Add decode.sample=true.")
        if self.sample and (self.no_repeat_ngram or self.beam_groups > 1):
            key = "no_repeat_ngram" if self.no_repeat_ngram else "beam_groups"
            raise ConfigError("config", f"decode.{key} is for a search", "Leave decode.sample out.")
        if (self.beam_groups > 1) != (self.diversity > 0):
            what = f"decode.beam_groups={self.beam_groups} and decode.diversity={self.diversity:g}"
            alone = "Set both or none, as in decode.beam_groups=4 decode.diversity=0.5."
            raise ConfigError("config", f"{what} do not go together", alone)
        if self.beam_groups > self.beam_size:
            what = f"decode.beam_groups={self.beam_groups} is above decode.beam_size"
            raise ConfigError("config", f"{what}={self.beam_size}", "Widen the beam.")
        if self.mbr is not None and self.n_best < 2:
            alone = f"decode.mbr={self.mbr} has nothing to choose from with decode.n_best=1"
            raise ConfigError("config", alone, "Raise decode.n_best.")
        if not all(0 < weight < math.inf for weight in self.weights or ()):
            idle = f"decode.weights={self.weights} are not all above 0"
            raise ConfigError("config", idle, "Leave a run out that is to have no weight.")


# A named set of sentences to look at; `figure3` is English-French
Examples = StrEnum("Examples", "figure3")


@dataclass(kw_only=True)
class EvaluateConfig:
    """Scores and figures of the test set."""

    # Test sentences (1 is the first) that are drawn
    heatmaps: list[int] = field(default_factory=lambda: [1, 2, 3, 4])
    # Sets of sentences that are translated and drawn besides, whatever the test set is
    examples: list[Examples] = field(default_factory=list)
    heatmap_words: bool = False  # join subwords to words in the figures
    # Font file for scripts that the default fonts lack; null finds an installed one
    heatmap_font: str | None = None
    # sacreBLEU tokenizer: 13a, zh, ja-mecab, ko-mecab, char, ..; null for what suits the target
    # language
    bleu_tokenizer: str | None = None

    def check(self, config: Any) -> None:
        """See that the sentences to draw can be there."""
        if any(number < 1 for number in self.heatmaps):
            what = f"evaluate.heatmaps={self.heatmaps} names no sentence"
            raise ConfigError("config", what, "1 is first.")
        languages = ["-".join(direction) for direction in config.data.directions]
        if Examples.figure3 in self.examples and "en-fr" not in languages:
            what = f"evaluate.examples=[figure3] is English-French, data is {', '.join(languages)}"
            raise ConfigError("config", what, "Use evaluate.examples=[].")
