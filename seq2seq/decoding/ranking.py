"""The score that orders finished translations, shared by search, forcing and sampling."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_LEAST = 1e-10  # lower bound on the attention of a source token, so that its logarithm is finite


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The score of a translation y of x; `config.schema.DecodeConfig` explains the options.

    log p(y | x) / lp(y) + coverage_penalty * cp(x, y), with lp(y) = |y| ** length_penalty or, as
    in Wu et al. 2016 (arXiv:1609.08144), Eq. (14), ((5 + |y|) / 6) ** length_penalty, and
    cp(x, y) = sum_j log min(1, sum_i alpha_ij). End symbols count on both sides.
    """

    length_penalty: float = 0.0
    gnmt: bool = False
    coverage_penalty: float = 0.0

    def score(self, log_prob: float, num_tokens: int, alpha: Floats | None) -> float:
        """Return the score; alpha (Ty, Tx) is used only with a `coverage_penalty`."""
        length = (5 + num_tokens) / 6 if self.gnmt else num_tokens
        score: float = log_prob / length**self.length_penalty
        if self.coverage_penalty:
            assert alpha is not None
            covered = alpha.sum(axis=0, dtype=np.float64).clip(_LEAST, 1.0)
            score += self.coverage_penalty * float(np.log(covered).sum())
        return score
