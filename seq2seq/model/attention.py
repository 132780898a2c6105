"""The attention family: one protocol, (query, keys, values, mask) -> (context, weights).

Outside this file the words are *query* (decoder state before the word is emitted), *keys*
(projected annotations) and *values* (annotations). Inside each class the letters are the paper's.

    additive    e_ij = v_a' tanh(W_a s_{i-1} + U_a h_j)     Bahdanau et al. 2014, A.1.2
    dot         e_ij = s_{i-1}' k_j                         Luong et al. 2015, 3.1
    scaled_dot  e_ij = s_{i-1}' k_j / sqrt(n)               Vaswani et al. 2017, 3.2.1
    general     e_ij = s_{i-1}' U_a h_j                     Luong et al. 2015, 3.1
    multi_head  scaled dot products, one per head           Vaswani et al. 2017, 3.2.2
    coverage    additive, and how far h_j is translated     Tu et al. 2016, 3.1
    local       general, in a window that the query places  Luong et al. 2015, 3.2 (local-p)
    fixed       none: c_i = h_fwd_Tx                        Cho et al. 2014, the paper's RNNencdec
    uniform     none: c_i is the mean of h_j                Wiegreffe & Pinter 2019, 3.2
    hard        additive; one position is drawn             Xu et al. 2015, 4.1: `hard_attention.py`

Queries are rows (R, n): the K hypotheses of the first sentence, which share its keys and values,
then those of the next. In training K is 1.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from seq2seq.model.encoder import pick
from seq2seq.model.initialization import Scheme, draw_layers
from seq2seq.model.protocols import Attended, Layer, Memory, Source


class SoftAttention(nn.Module):
    """Attention whose context is a mean of annotations; as such, without keys and weights."""

    learned: ClassVar[bool] = True
    sequential: ClassVar[bool] = False

    def __init__(self, annotation_size: int) -> None:
        super().__init__()
        self.context_size = annotation_size

    def initialize(self, scheme: Scheme) -> None:
        """Draw nothing: there are no weights."""

    def prepare(self, memory: Memory) -> Source:
        """Pass on the annotations; there are no keys."""
        return Source(memory.states[..., :0], memory.states, memory.mask)


class WeightedAttention(SoftAttention, ABC):
    """Weights alpha_i, which subclasses compute, and the expected annotation, Eq. (5).

    The two halves are apart so that others may change the weights: `intervention.py`.
    """

    @abstractmethod
    def weigh(self, query: Tensor, source: Source, state: Tensor | None = None) -> Tensor:
        """Return alpha_i (R, Tx), or (R, h, Tx) of several heads, for s_{i-1} (R, n)."""

    def attended(self, alpha: Tensor, source: Source, state: Tensor | None = None) -> Attended:
        """Return the context of weights as `weigh` returns them."""
        return Attended(expectation(alpha, source), alpha)

    def forward(self, query: Tensor, source: Source, state: Tensor | None = None) -> Attended:
        """Attend with s_{i-1} (R, n)."""
        return self.attended(self.weigh(query, source, state), source, state)


class AdditiveAttention(WeightedAttention):
    """Alignment model and expected annotation, A.1.2 and Eqs. (5)-(6). No biases.

    e_ij     = v_a' tanh(W_a s_{i-1} + U_a h_j)
    alpha_ij = exp(e_ij) / sum_k exp(e_ik)          (6)
    c_i      = sum_j alpha_ij h_j                   (5)
    """

    def __init__(self, query: int, annotation: int, align: int, linear: Layer = nn.Linear) -> None:
        super().__init__(annotation)
        # (n', n): A.1.2 prints (n, n), which only fits because both are 1000 there; see A.2.2.
        self.W_a = linear(query, align, bias=False)
        self.U_a = linear(annotation, align, bias=False)
        self.v_a = linear(align, 1, bias=False)

    def initialize(self, scheme: Scheme) -> None:
        """Draw W_a, U_a, v_a."""
        scheme.alignment(self.W_a.weight)
        scheme.alignment(self.U_a.weight)
        scheme.energy(self.v_a.weight)

    def prepare(self, memory: Memory) -> Source:
        """Compute U_a h_j, which does not depend on i (A.1.2, last paragraph)."""
        return Source(self.U_a(memory.states), memory.states, memory.mask)

    def weigh(self, query: Tensor, source: Source, state: Tensor | None = None) -> Tensor:
        """Return alpha_i (R, Tx) for s_{i-1} (R, n)."""
        return self.compare(query, source.keys[:, None], source)

    def compare(self, query: Tensor, keys: Tensor, source: Source) -> Tensor:
        """Return alpha_i (R, Tx) for s_{i-1} (R, n) and keys (B, 1 or K, Tx, n')."""
        asked = by_sentence(self.W_a(query), source)[:, :, None]
        hidden = torch.tanh(asked + keys)  # (B, K, Tx, n')
        return masked_softmax(self.v_a(hidden).squeeze(-1), source.mask[:, None]).flatten(0, 1)


class CoverageAttention(AdditiveAttention):
    """Additive attention with linguistic coverage, Tu et al. 2016, 3.1.1.

    e_ij  = v_a' tanh(W_a s_{i-1} + U_a h_j + V_a C_{i-1,j})
    C_ij  = C_{i-1,j} + alpha_ij / Phi_j,   C_0j = 0
    Phi_j = N sigmoid(U_f h_j)              fertility: expected target words for x_j, at most N

    The attention's state is C_i.
    """

    sequential: ClassVar[bool] = True

    def __init__(
        self,
        query: int,
        annotation: int,
        align: int,
        max_fertility: float,
        linear: Layer = nn.Linear,
    ) -> None:
        super().__init__(query, annotation, align, linear)
        self.max_fertility = max_fertility  # N
        self.V_a = linear(1, align, bias=False)
        self.U_f = linear(annotation, 1, bias=False)

    def initialize(self, scheme: Scheme) -> None:
        """Draw W_a, U_a, v_a, V_a, U_f."""
        super().initialize(scheme)
        draw_layers(scheme, self.V_a, self.U_f)

    def prepare(self, memory: Memory) -> Source:
        """Compute U_a h_j and Phi_j."""
        fertility = self.max_fertility * torch.sigmoid(self.U_f(memory.states).squeeze(-1))
        return Source(self.U_a(memory.states), memory.states, memory.mask, fertility)

    def weigh(self, query: Tensor, source: Source, state: Tensor | None = None) -> Tensor:
        """Return alpha_i (R, Tx) for s_{i-1} (R, n), given C_{i-1} (R, Tx)."""
        keys = source.keys[:, None]
        if state is not None:
            keys = keys + self.V_a(by_sentence(state, source)[..., None])
        return self.compare(query, keys, source)

    def attended(self, alpha: Tensor, source: Source, state: Tensor | None = None) -> Attended:
        """Return the context, and C_i (R, Tx)."""
        assert source.fertility is not None
        added = (by_sentence(alpha, source) / source.fertility[:, None]).flatten(0, 1)
        covered = added if state is None else state + added
        return Attended(expectation(alpha, source), alpha, covered)


class DotAttention(WeightedAttention):
    """Dot product of query and key, optionally divided by sqrt(n). No parameters.

    k_j = h_fwd_j + h_bwd_j, because h_j has width 2n and the query n. `general` has a learned
    projection instead of this sum.
    """

    def __init__(self, query: int, annotation: int, *, scaled: bool) -> None:
        super().__init__(annotation)
        self.query_size = query
        self.scale = query**-0.5 if scaled else 1.0

    def prepare(self, memory: Memory) -> Source:
        """Add the two directions."""
        keys = memory.states.unflatten(-1, (-1, self.query_size)).sum(dim=-2)  # (B, Tx, n)
        return Source(keys, memory.states, memory.mask)

    def weigh(self, query: Tensor, source: Source, state: Tensor | None = None) -> Tensor:
        """Return alpha_i (R, Tx) for s_{i-1} (R, n)."""
        energy = self.scale * dot_products(query, source)
        return masked_softmax(energy, source.mask[:, None]).flatten(0, 1)


class GeneralAttention(WeightedAttention):
    """Bilinear energy e_ij = s_{i-1}' U_a h_j, Luong et al. 2015."""

    def __init__(self, query: int, annotation: int, linear: Layer = nn.Linear) -> None:
        super().__init__(annotation)
        self.U_a = linear(annotation, query, bias=False)

    def initialize(self, scheme: Scheme) -> None:
        """Draw U_a."""
        scheme.alignment(self.U_a.weight)

    def prepare(self, memory: Memory) -> Source:
        """Compute U_a h_j."""
        return Source(self.U_a(memory.states), memory.states, memory.mask)

    def weigh(self, query: Tensor, source: Source, state: Tensor | None = None) -> Tensor:
        """Return alpha_i (R, Tx) for s_{i-1} (R, n)."""
        return masked_softmax(dot_products(query, source), source.mask[:, None]).flatten(0, 1)


class LocalAttention(GeneralAttention):
    """Local attention with a predicted position, local-p of Luong et al. 2015, 3.2.

    p_i      = S sigmoid(v_p' tanh(W_p s_{i-1}))                       S source words, end included
    alpha_ij = softmax over |j - p_i| <= D of e_ij, times exp(-(j - p_i)^2 / (2 (D/2)^2))

    Positions count from 0. As in their Eq. (10), the product is not renormalised: the weights sum
    to at most 1, and p_i has a gradient.
    """

    def __init__(self, query: int, annotation: int, window: int, linear: Layer = nn.Linear) -> None:
        super().__init__(query, annotation, linear)
        self.window = window  # D
        self.W_p = linear(query, query, bias=False)
        self.v_p = linear(query, 1, bias=False)

    def initialize(self, scheme: Scheme) -> None:
        """Draw U_a, W_p, v_p."""
        super().initialize(scheme)
        draw_layers(scheme, self.W_p, self.v_p)

    def weigh(self, query: Tensor, source: Source, state: Tensor | None = None) -> Tensor:
        """Return alpha_i (R, Tx) for s_{i-1} (R, n)."""
        lengths = source.mask.sum(dim=1)[:, None, None]
        place = self.v_p(torch.tanh(self.W_p(query)))  # (R, 1)
        # At least float32, like the softmax: bfloat16 could round p_i to outside the sentence.
        share = torch.sigmoid(place.to(torch.promote_types(place.dtype, torch.float32)))
        p = lengths * by_sentence(share, source)  # (B, K, 1)
        distance = torch.arange(source.mask.shape[1], device=p.device) - p  # (B, K, Tx)
        inside = source.mask[:, None] & (distance.abs() <= self.window)
        alpha = masked_softmax(dot_products(query, source), inside)
        alpha = alpha * torch.exp(-(distance**2) / (2 * (self.window / 2) ** 2))
        return alpha.flatten(0, 1)


class MultiHeadAttention(WeightedAttention):
    """Scaled dot products in several subspaces, Vaswani et al. 2017, 3.2.2. No biases.

    head_k = softmax((W_Q s_{i-1})_k' (W_K h_j)_k / sqrt(n'/heads)) (W_V h_j)_k
    c_i    = W_O [head_1; ...; head_heads]

    `alpha` is the mean over heads.
    """

    def __init__(
        self, query: int, annotation: int, align: int, heads: int, linear: Layer = nn.Linear
    ) -> None:
        super().__init__(annotation)
        self.heads = heads
        self.W_Q = linear(query, align, bias=False)
        self.W_K = linear(annotation, align, bias=False)
        self.W_V = linear(annotation, annotation, bias=False)
        self.W_O = linear(annotation, annotation, bias=False)
        self.scale = (align // heads) ** -0.5

    def initialize(self, scheme: Scheme) -> None:
        """Draw W_Q, W_K, W_V, W_O."""
        draw_layers(scheme, self.W_Q, self.W_K, self.W_V, self.W_O)

    def prepare(self, memory: Memory) -> Source:
        """Project keys and values of all heads."""
        h = memory.states
        return Source(self.W_K(h), self.W_V(h), memory.mask)

    def weigh(self, query: Tensor, source: Source, state: Tensor | None = None) -> Tensor:
        """Return the weights of each head (R, h, Tx) for s_{i-1} (R, n)."""
        q = by_sentence(self.W_Q(query).unflatten(-1, (self.heads, -1)), source)  # (B, K, H, n'/H)
        energy = self.scale * torch.einsum("bkhd,bthd->bkht", q, self._split(source.keys))
        return masked_softmax(energy, source.mask[:, None, None]).flatten(0, 1)

    def attended(self, alpha: Tensor, source: Source, state: Tensor | None = None) -> Attended:
        """Return the context of weights (R, h, Tx)."""
        v = self._split(source.values)
        heads = torch.einsum("bkht,bthd->bkhd", by_sentence(alpha, source).to(v.dtype), v)
        c = self.W_O(heads.flatten(2).flatten(0, 1))
        return Attended(c, alpha.mean(dim=1), heads=alpha)

    def _split(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.heads, -1))
        return heads


class FixedContext(SoftAttention):
    """No attention: every c_i is the last state of a forward encoder, the RNNencdec of Table 1.

    `alpha` is 1 on the last source position, the end symbol, where that state is.
    """

    learned: ClassVar[bool] = False

    def forward(self, query: Tensor, source: Source, state: Tensor | None = None) -> Attended:
        """Attend to the end of the source, whatever the query."""
        last, K = source.mask.sum(dim=1) - 1, query.shape[0] // source.mask.shape[0]
        places = torch.arange(source.mask.shape[1], device=last.device)
        alpha = (places == last[:, None]).to(query.dtype)
        c = pick(source.values, last)
        c, alpha = (x.repeat_interleave(K, dim=0) if K > 1 else x for x in (c, alpha))
        return Attended(c, alpha)


class UniformAttention(WeightedAttention):
    """Equal weights on all source words, the end symbol included: what attention is worth.

    A model warm-started with it and retrained (`init.run`) loses what its weights did; Wiegreffe &
    Pinter 2019, arXiv:1908.04626, 3.2.
    """

    learned: ClassVar[bool] = False

    def weigh(self, query: Tensor, source: Source, state: Tensor | None = None) -> Tensor:
        """Return alpha_i (R, Tx), whatever the query."""
        alpha = source.mask.to(query.dtype) / source.mask.sum(dim=1, keepdim=True)
        return alpha.repeat_interleave(query.shape[0] // len(alpha), dim=0)


def masked_softmax(energy: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where `mask` is True, exactly 0 elsewhere.

    Computed in float32 or wider. Every row needs a True; a source always has its end symbol.
    """
    wide = torch.promote_types(energy.dtype, torch.float32)
    return torch.softmax(energy.to(wide).masked_fill(~mask, -torch.inf), dim=-1)


def by_sentence(rows: Tensor, source: Source) -> Tensor:
    """Return rows (R, ...) as (B, K, ...)."""
    split: Tensor = rows.unflatten(0, (source.mask.shape[0], -1))
    return split


def expectation(alpha: Tensor, source: Source) -> Tensor:
    """Return sum_j alpha_ij h_j (R, 2n), Eq. (5), for alpha (R, Tx)."""
    weights = by_sentence(alpha, source).to(source.values.dtype)
    return torch.bmm(weights, source.values).flatten(0, 1)


def dot_products(query: Tensor, source: Source) -> Tensor:
    """Return the dot products of keys with queries (R, n), as (B, K, Tx)."""
    # With K = 1, as in training, use vectors: a one-column matrix is summed in another order.
    alone = query.shape[0] == source.keys.shape[0]
    asked = query[..., None] if alone else by_sentence(query, source).mT  # (B, n, K)
    energy: Tensor = torch.bmm(source.keys, asked.to(source.keys.dtype)).mT
    return energy
