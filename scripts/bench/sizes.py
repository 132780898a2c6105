"""Named sizes of the model, and how many operations a token costs at each."""

from dataclasses import dataclass, replace

from seq2seq.config.schema import (
    Backend,
    Config,
    GatedConfig,
    InitialWeights,
    ModelConfig,
    RecurrentDecoderConfig,
    RecurrentEncoderConfig,
)


@dataclass(frozen=True)
class Size:
    """Sizes that are compared; the readout has l = n / 2 as in the paper."""

    name: str
    embedding: int  # m
    hidden: int  # n and n'
    vocabulary: int  # K_x and K_y

    def apply_to(self, cfg: Config, backend: Backend) -> Config:
        """Return a config with the paper's model at this size, and dropout, which costs time."""
        model = ModelConfig(
            embedding_size=self.embedding,
            hidden_size=self.hidden,
            align_size=self.hidden,
            readout_size=self.hidden // 2,
            embedding_bias=True,
            init=InitialWeights.glorot,
            embedding_dropout=0.2,
            backend=backend,
        )
        return replace(
            cfg,
            model=model,
            cell=GatedConfig(),
            encoder=RecurrentEncoderConfig(),
            decoder=RecurrentDecoderConfig(readout_dropout=0.2),
        )

    def training_operations(self, source_tokens: int, target_tokens: int, looks: int) -> int:
        """Return multiplications and additions of an update's products, forward and backward.

        Counted are those that the equations need on real tokens, each once; what a method computes
        twice, padding, and elementwise functions count nothing.

        Args:
            source_tokens: Of the batch, end symbols included.
            target_tokens: The same.
            looks: Sum of source x target tokens over its sentences.
        """
        m, n, words = self.embedding, self.hidden, self.vocabulary
        encoder = 2 * (3 * m * n + 3 * n * n) + 2 * n * n  # both directions, U_a h
        state = 3 * m * n + 3 * n * n + 2 * n * 3 * n + n * n  # W, U, C, W_a
        readout = (n + m + 2 * n) * n + n // 2 * words  # U_o, V_o, C_o, W_o
        forward = source_tokens * encoder + target_tokens * (state + readout) + looks * 3 * n
        return 3 * 2 * forward  # a product and a sum; backward costs two products for each


SIZES = {"small": (192, 256), "medium": (256, 512), "paper": (620, 1000)}
"""Embeddings and hidden units; `paper` is RNNsearch of Bahdanau et al. 2014, A.2.3."""
