"""Every setting: its type, its range, its meaning. Values live in `configs/*.yaml`, never here.

No field has a default: a value that is given nowhere is an error. `config.to_config()` fills these
classes and checks the ranges that stand in the metadata of their fields.
"""

import math
from dataclasses import dataclass, field
from enum import Enum
from typing import Any


def _number(low: float = -math.inf, high: float = math.inf, *, open_ends: str = "") -> Any:
    """A required field whose value lies in [low, high]; `open_ends` names excluded ends."""
    return field(metadata={"low": low, "high": high, "open": open_ends})


def _at_least(low: float) -> Any:
    return _number(low)


def _share() -> Any:
    """A probability that must leave something over: [0, 1)."""
    return _number(0.0, 1.0, open_ends="high")


class Stage(Enum):
    """The steps of a run, in their order."""

    tokenize = "tokenize"
    train = "train"
    decode = "decode"
    evaluate = "evaluate"


@dataclass(kw_only=True)
class GrammarConfig:
    """The embedded corpus: sizes of its splits and lengths of its sentences."""

    seed: int = _at_least(0)
    """Every seed gives another corpus; one seed always the same."""
    train_pairs: int = _at_least(1)
    validation_pairs: int = _at_least(1)
    test_pairs: int = _at_least(1)
    min_words: int = _number(3, 60)
    """Shortest English sentence, in words."""
    max_words: int = _number(3, 60)
    """Longest English sentence, in words."""


@dataclass(kw_only=True)
class DataConfig:
    """Where sentence pairs come from, and which of them are kept for training."""

    source_language: str
    target_language: str
    root: str
    """Folder that relative file names start from."""
    train: list[str]
    """`[embedded]`, two parallel files, one .tsv/.jsonl/.parquet file, `[hub:NAME:CONFIG]`, or
    `[sacrebleu:NAME+NAME]`."""
    validation: list[str]
    test: list[str]
    max_words: int = _at_least(1)
    """Training pairs with a longer side are dropped. Counted, without the end symbol, are the
    words of `tokenizer: words`, and what stands between blanks with subwords."""
    max_ratio: float = _at_least(1)
    """Training pairs whose longer side has over this many times the words are dropped."""
    drop_duplicates: bool
    """Keep only the first of equal training pairs."""
    limit: int | None = _at_least(1)
    """Use only the first so many training pairs; null for all."""
    grammar: GrammarConfig


class TokenizerKind(Enum):
    """How text becomes ids."""

    words = "words"
    sentencepiece = "sentencepiece"


@dataclass(kw_only=True)
class WordsConfig:
    """Moses words, the most frequent of the training text; the rest is unknown (4.1)."""

    name: TokenizerKind
    vocab_size: int = _at_least(4)
    """Ids per language: y_0 (never produced), the unknown word, the end symbol, then words."""


class PieceModel(Enum):
    """How SentencePiece chooses its pieces."""

    bpe = "bpe"
    unigram = "unigram"


@dataclass(kw_only=True)
class SentencePieceConfig:
    """Subwords, learnt from the training text."""

    name: TokenizerKind
    kind: PieceModel
    joint: bool
    """One vocabulary for both languages."""
    vocab_size: int = _at_least(5)
    """Pieces per vocabulary, the four special ones included."""
    normalization: str
    """SentencePiece rule: `nmt_nfkc` (folds compatibility characters) or `identity`."""
    character_coverage: float = _number(0.9, 1.0)
    sampling: float = _share()
    """Subword regularisation in training: BPE-dropout rate or unigram temperature; 0 is off."""
    max_lines: int = _at_least(1)
    """The vocabulary is learnt from at most so many lines a language, spread over the corpus."""


class StateWord(Enum):
    """The word that moves the decoder state from s_{i-1} to s_i."""

    emitted = "emitted"
    previous = "previous"


class Reset(Enum):
    """Where the reset gate acts: on the state before U, or on the product after it."""

    before = "before"
    after = "after"


class Readout(Enum):
    """What stands between state, word and context and the output matrix."""

    maxout = "maxout"
    tanh = "tanh"


class InitialWeights(Enum):
    """How weights start."""

    paper = "paper"
    glorot = "glorot"


class Backend(Enum):
    """How recurrences run in training: the readable loops, or the fused kernels (same numbers)."""

    auto = "auto"
    reference = "reference"
    fused = "fused"


@dataclass(kw_only=True)
class ModelConfig:
    """RNNsearch, Appendix A; sizes of A.2.3."""

    embedding_size: int = _at_least(1)
    """m, word embedding."""
    hidden_size: int = _at_least(1)
    """n, gated units: per direction of the encoder, and of the decoder."""
    align_size: int = _at_least(1)
    """n', hidden units of the alignment model."""
    readout_size: int = _at_least(1)
    """l, units of the readout; maxout takes the larger of two for each."""
    readout: Readout
    state_word: StateWord
    reset: Reset
    bias: bool
    """Biases of the candidate state, the start state, the readout and the output."""
    embedding_bias: bool
    """A bias on embedded words, as in the authors' code."""
    output_rank: int | None = _at_least(1)
    """Factor W_o into (l, rank)(rank, K_y); null keeps it whole."""
    init: InitialWeights
    embedding_dropout: float = _share()
    annotation_dropout: float = _share()
    readout_dropout: float = _share()
    backend: Backend


class AttentionKind(Enum):
    """How the decoder looks at the source; `seq2seq/model/attention.py` has the formulas."""

    additive = "additive"
    dot = "dot"
    scaled_dot = "scaled_dot"
    general = "general"
    multi_head = "multi_head"
    hard = "hard"
    local = "local"
    fixed = "fixed"


@dataclass(kw_only=True)
class AttentionConfig:
    """A kind without options: additive (the paper's), dot, scaled_dot, general, fixed."""

    name: AttentionKind


@dataclass(kw_only=True)
class MultiHeadConfig:
    """Several scaled dot products side by side, Vaswani et al. 2017."""

    name: AttentionKind
    heads: int = _at_least(1)
    """Divides `model.align_size` and twice `model.hidden_size`."""


class HardInference(Enum):
    """What hard attention takes at test time."""

    most_likely = "most_likely"
    expectation = "expectation"


@dataclass(kw_only=True)
class HardConfig:
    """One position is drawn and learnt by REINFORCE, Xu et al. 2015, 4.1."""

    name: AttentionKind
    inference: HardInference
    soft_share: float = _number(0.0, 1.0)
    """Share of the looks that take the expectation in training, against variance."""
    reinforce_weight: float = _at_least(0)
    """Weight of the draws' gradient; 1 makes the gradient that of the expected cost."""
    entropy_weight: float = _at_least(0)
    """Reward per nat of entropy of the weights, so that they do not settle too early."""


@dataclass(kw_only=True)
class LocalConfig:
    """A window around a predicted position, local-p of Luong et al. 2015."""

    name: AttentionKind
    window: int = _at_least(1)
    """D: words on either side."""


AnyAttentionConfig = AttentionConfig | MultiHeadConfig | HardConfig | LocalConfig


class OptimizerKind(Enum):
    """Which rule moves the weights."""

    adadelta = "adadelta"
    adam = "adam"


@dataclass(kw_only=True)
class AdadeltaConfig:
    """Zeiler's rule, the paper's B.2."""

    name: OptimizerKind
    lr: float = _number(0, open_ends="low")
    rho: float = _number(0, 1, open_ends="both")
    eps: float = _number(0, open_ends="low")
    weight_decay: float = _at_least(0)


@dataclass(kw_only=True)
class AdamConfig:
    """Adam with decoupled weight decay."""

    name: OptimizerKind
    lr: float = _number(0, open_ends="low")
    beta1: float = _share()
    beta2: float = _share()
    eps: float = _number(0, open_ends="low")
    weight_decay: float = _at_least(0)


class SchedulerKind(Enum):
    """How the learning rate changes."""

    constant = "constant"
    plateau = "plateau"
    linear = "linear"
    inverse_sqrt = "inverse_sqrt"
    cosine = "cosine"


@dataclass(kw_only=True)
class ConstantConfig:
    """The optimizer's rate, unchanged."""

    name: SchedulerKind


@dataclass(kw_only=True)
class PlateauConfig:
    """Multiply the rate by `factor` after `patience` validations without a better score."""

    name: SchedulerKind
    factor: float = _number(0, 1, open_ends="both")
    patience: int = _at_least(0)
    min_factor: float = _number(0, 1)
    """Never below this share of the optimizer's rate."""


@dataclass(kw_only=True)
class DecayConfig:
    """Warm up linearly, then fall: to `final_factor` at the last update, or as 1/sqrt(update)."""

    name: SchedulerKind
    warmup: int = _at_least(0)
    """Updates until the full rate."""
    final_factor: float = _number(0, 1)
    """Share of the rate that is left at `trainer.max_updates`."""


class Normalize(Enum):
    """What the summed cost is divided by before the backward pass."""

    none = "none"
    sentences = "sentences"
    words = "words"


class Precision(Enum):
    """Number format of matrix products; softmax, energies and loss stay in float32."""

    fp32 = "fp32"
    bf16 = "bf16"


class BatchOrder(Enum):
    """Order of the batches cut from one sorted pool."""

    shortest_first = "shortest_first"
    shuffled = "shuffled"


class SelectBy(Enum):
    """The validation figure that decides which checkpoint is best."""

    loss = "loss"
    bleu = "bleu"


@dataclass(kw_only=True)
class TrainerConfig:
    """Batches, cost, clipping, validation, limits."""

    batch_sentences: int | None = _at_least(1)
    """Sentences a batch; null when `batch_tokens` counts instead."""
    batch_tokens: int | None = _at_least(1)
    """Padded tokens a batch, the longer side; null when `batch_sentences` counts instead."""
    pool_batches: int = _at_least(1)
    """So many batches are drawn together, sorted by length and cut."""
    batch_order: BatchOrder
    reshuffle: bool
    """Shuffle anew in each epoch; otherwise once."""
    normalize: Normalize
    clip_norm: float = _number(0, open_ends="low")
    """Greatest gradient norm over all parameters."""
    label_smoothing: float = _share()
    precision: Precision
    ema_decay: float = _share()
    """Decay per update of the averaged weights that are validated and decoded; 0 is off."""
    max_updates: int = _at_least(1)
    max_epochs: int | None = _at_least(1)
    max_minutes: float | None = _number(0, open_ends="low")
    """Stop after so many minutes of this process; the run can be resumed (exit code 75)."""
    validate_every: int = _at_least(1)
    """Updates between validations; a checkpoint is written at each."""
    checkpoint_every: int = _at_least(1)
    """Updates between further checkpoints."""
    keep_checkpoints: int = _at_least(2)
    """Newest checkpoints that are kept, besides the best."""
    select_by: SelectBy
    patience: int | None = _at_least(1)
    """Stop after so many validations without a better score; null never stops."""
    validation_sentences: int | None = _at_least(1)
    """Decode only the first so many validation sentences; the loss uses all."""
    validation_beam: int = _at_least(1)
    """Beam of the decoding in validation."""


@dataclass(kw_only=True)
class DecodeConfig:
    """Beam search."""

    beam_size: int = _at_least(1)
    length_penalty: float = _at_least(0)
    """Scores are divided by (words + end symbol) to this power; 0 sums, 1 averages."""
    min_ratio: float = _at_least(0)
    """The end symbol is forbidden before this share of the source length (end included)."""
    max_ratio: float = _number(0, open_ends="low")
    """At most this many times the source length (end included) in steps."""
    extra_steps: int = _at_least(0)
    """Steps allowed beyond `max_ratio`, for short sources."""
    forbid_unknown: bool
    """Never emit the unknown symbol."""
    replace_unknown: bool
    """Write the source token that it attends to most in place of an unknown symbol."""
    n_best: int = _at_least(1)
    """Hypotheses kept per sentence, at most `beam_size`."""
    batch_sentences: int = _at_least(1)
    max_source_tokens: int = _at_least(1)
    """A longer source is cut, with a warning."""


class Examples(Enum):
    """A named set of sentences to look at."""

    figure3 = "figure3"


@dataclass(kw_only=True)
class EvaluateConfig:
    """Scores and pictures of the test set."""

    heatmaps: list[int]
    """Test sentences (1 is the first) that are drawn."""
    examples: list[Examples]
    """Sets of sentences that are translated and drawn besides, whatever the test set is."""
    heatmap_words: bool
    """Join subwords to words in the pictures."""
    heatmap_font: str | None
    """Font file for scripts that the default fonts lack; null finds an installed one."""
    bleu_tokenizer: str
    """sacreBLEU tokenizer: 13a, or zh, ja-mecab, ko-mecab, char, ..."""


@dataclass(kw_only=True)
class LoggingConfig:
    """What is shown while training; nothing here changes the weights."""

    every: int = _at_least(1)
    """Updates between lines."""
    tensorboard: bool
    samples: int = _at_least(0)
    """Validation translations shown in TensorBoard, the first ones with a heatmap."""
    heatmaps: int = _at_least(0)


class Device(Enum):
    """Where tensors live; auto takes CUDA if there is one."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(kw_only=True)
class Config:
    """One run."""

    name: str
    seed: int = _at_least(0)
    device: Device
    threads: int | None = _at_least(1)
    """CPU threads; null leaves torch's choice. Results are exact only at an equal count."""
    stages: list[Stage]
    data: DataConfig
    tokenizer: Any
    model: ModelConfig
    attention: Any
    optimizer: Any
    scheduler: Any
    trainer: TrainerConfig
    decode: DecodeConfig
    evaluate: EvaluateConfig
    logging: LoggingConfig
