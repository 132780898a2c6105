"""Search steps in torch operations; data that a sentence's hypotheses share is stored once."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from seq2seq.kernels.energies import Energies
from seq2seq.kernels.matmul import PackedWeight
from seq2seq.model.output import best_listed, best_logits, max_of_pairs
from seq2seq.model.protocols import Barred


@dataclass(frozen=True)
class SearchWeights:
    """The weights of a search with additive attention: those on the state, and the output layer."""

    dtype: torch.dtype  # of matmuls; int8 needs the native library
    from_state: Tensor  # (n' + 2n + w, n)  [W_a, U_z, U_r, U_o]
    U: Tensor  # (n, n)
    last: nn.Linear  # the output layer
    n_align: int
    reset_before: bool
    maxout: bool


@dataclass(frozen=True)
class Shared:
    """The inputs of attention, once per sentence."""

    energies: Energies
    adds: Tensor  # (B, Tx, 3n + w)  [C, C_z, C_r, C_o] h_j
    blocked: Tensor  # (B, Tx) bool, True on padding

    def attend(self, query: Tensor, slots: int) -> tuple[Tensor, Tensor]:
        """Return sum_j alpha_j [C, C_z, C_r, C_o] h_j (R, 3n + w), and alpha (R, Tx).

        Queries (R, n') are `slots` per sentence.
        """
        query = query.to(self.adds.dtype).unflatten(0, (-1, slots))
        energy = self.energies.of_hypotheses(query)
        energy.masked_fill_(self.blocked[:, None], -torch.inf)  # (B, K, Tx)
        alpha = torch.softmax(energy, dim=-1)
        return torch.bmm(alpha, self.adds).flatten(0, 1), alpha.flatten(0, 1)

    def select(self, sentences: Tensor) -> "Shared":
        """Return a subset of the sentences."""
        if len(sentences) == len(self.adds):
            return self
        chosen = self.adds[sentences], self.blocked[sentences]
        return Shared(self.energies.select(sentences), *chosen)


class TorchWords:
    """The best words by an output layer, in torch operations; `native.search` is the same in C."""

    def __init__(self, last: nn.Linear, dtype: torch.dtype) -> None:
        self.last, self.W = last, PackedWeight(last.weight, dtype)

    def best(self, t: Tensor, count: int, barred: Barred) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits and ids of the best words (R, count), and log-sum-exps (R, 1)."""
        logits = self.W(t)
        if self.last.bias is not None:
            logits = logits + self.last.bias  # in the wider of the two dtypes
        return best_logits(logits, count, barred)

    def best_listed(
        self, t: Tensor, lists: Tensor, count: int, barred: Barred
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same as `best`, of the words in the lists (B, N), one of each sentence."""
        slots = len(t) // len(lists)
        weight, bias = self.last.weight[lists], self.last.bias
        logits = torch.bmm(t.unflatten(0, (-1, slots)), weight.mT)  # (B, K, N)
        if bias is not None:
            logits += bias[lists][:, None]
        rows = lists.repeat_interleave(slots, dim=0)
        return best_listed(logits.flatten(0, 1), rows, count, barred)

    def logits_of(self, t: Tensor, words: Tensor) -> Tensor:
        """Return the logits of words (R, k) in the dtype of the weights, given t (R, l)."""
        logits = torch.einsum("rl,rkl->rk", t, self.last.weight[words])
        return logits if self.last.bias is None else logits + self.last.bias[words]


class TorchSearch(TorchWords):
    """The steps of a search in torch operations; `native.search` is the same in C."""

    def __init__(self, weights: SearchWeights) -> None:
        super().__init__(weights.last, weights.dtype)
        from_state, U, n_align = weights.from_state, weights.U, weights.n_align
        self.reset_before, self.maxout = weights.reset_before, weights.maxout
        # Widths of query, z and r, readout, and, if the reset gate acts on it, U s.
        self.widths = [n_align, 2 * len(U), len(from_state) - n_align - 2 * len(U)]
        if not self.reset_before:
            from_state, self.widths = torch.cat([from_state, U]), [*self.widths, len(U)]
        self.from_state = PackedWeight(from_state, weights.dtype)
        self.U = PackedWeight(U, weights.dtype)

    def share(self, keys: Tensor, adds: Tensor, mask: Tensor, v_a: Tensor) -> Shared:
        """Prepare the inputs of attention."""
        return Shared(Energies(keys, v_a), adds, ~mask)

    def predict(
        self, s: Tensor, word: Tensor, source: Shared, slots: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return t (R, l), the gate terms from context and state, and alpha (R, Tx).

        From s_{i-1} (R, n), `slots` rows per sentence, and y_{i-1}'s terms in the readout (R, w).
        """
        n = s.shape[1]
        query, from_s, t_tilde, *Us = self.from_state(s).split(self.widths, dim=-1)
        adds, alpha = source.attend(query, slots)
        drive = torch.cat([adds[:, : 3 * n], *Us], dim=-1)
        drive[:, n : 3 * n] += from_s
        t_tilde = adds[:, 3 * n :].add_(t_tilde).add_(word)
        return max_of_pairs(t_tilde) if self.maxout else torch.tanh(t_tilde), drive, alpha

    def advance(self, s: Tensor, drive: Tensor, word: Tensor) -> Tensor:
        """Return s_i (R, n) from `predict`'s gate terms and those of a word (R, 3n)."""
        n = s.shape[1]
        total = word + drive[:, : 3 * n]
        z, r = total[:, n:].sigmoid_().chunk(2, dim=-1)
        if self.reset_before:
            s_tilde = self.U.plus(total[:, :n], r * s).tanh_()
        else:
            s_tilde = (total[:, :n] + r * drive[:, 3 * n :]).tanh_()
        return torch.lerp(s, s_tilde, z)
