"""The attention family: one protocol, (query, keys, values, mask) -> (context, weights).

Outside this file the words are *query* (decoder state before the word is emitted), *keys*
(projected annotations) and *values* (annotations). Inside each class the letters are the paper's.

    additive    e_ij = v_a' tanh(W_a s_{i-1} + U_a h_j)     Bahdanau et al. 2014, A.1.2
    dot         e_ij = s_{i-1}' k_j                         Luong et al. 2015, 3.1
    scaled_dot  e_ij = s_{i-1}' k_j / sqrt(n)               Vaswani et al. 2017, 3.2.1
    general     e_ij = s_{i-1}' U_a h_j                     Luong et al. 2015, 3.1
    multi_head  scaled dot products, one a head             Vaswani et al. 2017, 3.2.2
    hard        additive; one position is drawn             Xu et al. 2015, 4.1
    local       general, in a window that the query places  Luong et al. 2015, 3.2 (local-p)
    fixed       none: c_i = h_fwd_Tx                        Cho et al. 2014, the paper's RNNencdec
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from seq2seq.model.encoder import Encoded, pick


@dataclass(frozen=True)
class Annotations:
    """What the source leaves for the decoder; computed once per sentence."""

    keys: Tensor  # (B, Tx, n')    projected annotations, U_a h_j in A.1.2
    values: Tensor  # (B, Tx, 2n)  annotations h_j, Eq. (7)
    start: Tensor  # (B, n)        what s_0 is made from
    mask: Tensor  # (B, Tx)        bool, True on real tokens

    def select(self, rows: Tensor) -> "Annotations":
        """Return the given sentences, in the given order; rows may repeat."""
        return Annotations(self.keys[rows], self.values[rows], self.start[rows], self.mask[rows])


@dataclass(frozen=True)
class Draw:
    """A position drawn by hard attention, for REINFORCE; (B,) each, (B, Ty) along a target."""

    log_prob: Tensor  # of the drawn position; 0 where the expectation was taken
    entropy: Tensor  # of alpha, nats
    baseline: Tensor  # expected log p(y) of each word that is left; learned


@dataclass(frozen=True)
class Attended:
    """What one look at the source gives."""

    c: Tensor  # (B, 2n)     context, Eq. (5)
    alpha: Tensor  # (B, Tx) weights, Eq. (6); rows sum to 1 (`local`: at most), 0 on padding
    draw: Draw | None = None  # hard attention in training


class Attention(Protocol):
    """Any way to look at the source."""

    context_size: int  # width of c

    def annotate(self, encoded: Encoded) -> Annotations:
        """Project the annotations once per sentence."""
        ...

    def __call__(self, query: Tensor, source: Annotations) -> Attended:
        """Look at the source with a query (B, n)."""
        ...


class AdditiveAttention(nn.Module):
    """Alignment model and expected annotation, A.1.2 and Eqs. (5)-(6). No biases.

    e_ij     = v_a' tanh(W_a s_{i-1} + U_a h_j)
    alpha_ij = exp(e_ij) / sum_k exp(e_ik)          (6)
    c_i      = sum_j alpha_ij h_j                   (5)
    """

    def __init__(self, query_size: int, annotation_size: int, align_size: int) -> None:
        super().__init__()
        self.context_size = annotation_size
        # (n', n): A.1.2 prints (n, n), which only fits because both are 1000 there; see A.2.2.
        self.W_a = nn.Linear(query_size, align_size, bias=False)
        self.U_a = nn.Linear(annotation_size, align_size, bias=False)
        self.v_a = nn.Linear(align_size, 1, bias=False)

    def annotate(self, encoded: Encoded) -> Annotations:
        """Compute U_a h_j, which does not depend on i (A.1.2, last paragraph)."""
        return Annotations(self.U_a(encoded.h), encoded.h, encoded.start, encoded.mask)

    def weigh(self, query: Tensor, source: Annotations) -> Tensor:
        """Return alpha_i (B, Tx) for s_{i-1} (B, n)."""
        hidden = torch.tanh(self.W_a(query)[:, None] + source.keys)  # (B, Tx, n')
        return masked_softmax(self.v_a(hidden).squeeze(-1), source.mask)

    def forward(self, query: Tensor, source: Annotations) -> Attended:
        """Look at the source with s_{i-1} (B, n)."""
        alpha = self.weigh(query, source)
        return Attended(expectation(alpha, source.values), alpha)


class HardAttention(AdditiveAttention):
    """Stochastic attention to one position, Xu et al. 2015, 4.1, over the paper's energies.

    In training the context is one annotation, drawn with probabilities alpha_i; for a share of
    the looks (`soft_share`, their variance reduction) it is the expectation. The draw has no
    gradient: `training/reinforce.py` learns from its log-probability. At test time the context is
    the most likely annotation, or the expectation. `alpha` is always the distribution.
    """

    def __init__(
        self,
        query_size: int,
        annotation_size: int,
        align_size: int,
        *,
        soft_share: float,
        take_most_likely: bool,
    ) -> None:
        super().__init__(query_size, annotation_size, align_size)
        self.baseline = nn.Linear(query_size, 1)
        self.soft_share = soft_share
        self.take_most_likely = take_most_likely

    def forward(self, query: Tensor, source: Annotations) -> Attended:
        """Look at the source with s_{i-1} (B, n)."""
        alpha = self.weigh(query, source)
        if not self.training and self.take_most_likely:
            return Attended(pick(source.values, alpha.argmax(dim=-1)), alpha)
        expected = expectation(alpha, source.values)
        if not self.training:
            return Attended(expected, alpha)
        position, soft = self.draw(alpha.detach())
        c = torch.where(soft[:, None], expected, pick(source.values, position))
        log_alpha = alpha.clamp_min(torch.finfo(alpha.dtype).tiny).log()
        log_prob = log_alpha.gather(1, position[:, None]).squeeze(1)
        draw = Draw(
            log_prob=torch.where(soft, 0.0, log_prob),
            entropy=-(alpha * log_alpha).sum(dim=-1),
            baseline=self.baseline(query.detach()).squeeze(-1),
        )
        return Attended(c, alpha, draw)

    def draw(self, alpha: Tensor) -> tuple[Tensor, Tensor]:
        """Return a position for each row of alpha (B, Tx), and where to take the expectation."""
        soft = torch.rand(len(alpha), device=alpha.device) < self.soft_share
        return torch.multinomial(alpha, 1).squeeze(1), soft


class DotAttention(nn.Module):
    """Dot product of query and key, without parameters; optionally over sqrt(n).

    k_j = h_fwd_j + h_bwd_j, because h_j is 2n wide and the query n. With a learned projection in
    its place this would be `general`.
    """

    def __init__(self, query_size: int, annotation_size: int, *, scaled: bool) -> None:
        super().__init__()
        assert annotation_size == 2 * query_size
        self.context_size = annotation_size
        self.scale = query_size**-0.5 if scaled else 1.0

    def annotate(self, encoded: Encoded) -> Annotations:
        """Add the two directions."""
        keys = encoded.h.unflatten(-1, (2, -1)).sum(dim=-2)  # (B, Tx, n)
        return Annotations(keys, encoded.h, encoded.start, encoded.mask)

    def forward(self, query: Tensor, source: Annotations) -> Attended:
        """Look at the source with s_{i-1} (B, n)."""
        energy = self.scale * products(query, source.keys)
        alpha = masked_softmax(energy, source.mask)
        return Attended(expectation(alpha, source.values), alpha)


class GeneralAttention(nn.Module):
    """Bilinear energy e_ij = s_{i-1}' U_a h_j, Luong et al. 2015."""

    def __init__(self, query_size: int, annotation_size: int) -> None:
        super().__init__()
        self.context_size = annotation_size
        self.U_a = nn.Linear(annotation_size, query_size, bias=False)

    def annotate(self, encoded: Encoded) -> Annotations:
        """Compute U_a h_j."""
        return Annotations(self.U_a(encoded.h), encoded.h, encoded.start, encoded.mask)

    def forward(self, query: Tensor, source: Annotations) -> Attended:
        """Look at the source with s_{i-1} (B, n)."""
        alpha = masked_softmax(products(query, source.keys), source.mask)
        return Attended(expectation(alpha, source.values), alpha)


class LocalAttention(GeneralAttention):
    """Local attention with a predicted position, local-p of Luong et al. 2015, 3.2.

    p_i      = S sigmoid(v_p' tanh(W_p s_{i-1}))                       S source words, end included
    alpha_ij = softmax over |j - p_i| <= D of e_ij, times exp(-(j - p_i)^2 / (2 (D/2)^2))

    Positions count from 0. As in their Eq. (10) the product is not normalised again, so that the
    weights sum to at most 1 and p_i has a gradient.
    """

    def __init__(self, query_size: int, annotation_size: int, window: int) -> None:
        super().__init__(query_size, annotation_size)
        self.window = window  # D
        self.W_p = nn.Linear(query_size, query_size, bias=False)
        self.v_p = nn.Linear(query_size, 1, bias=False)

    def forward(self, query: Tensor, source: Annotations) -> Attended:
        """Look at the source with s_{i-1} (B, n)."""
        lengths = source.mask.sum(dim=1, keepdim=True)
        p = lengths * torch.sigmoid(self.v_p(torch.tanh(self.W_p(query))))  # (B, 1)
        distance = torch.arange(source.mask.shape[1], device=p.device) - p  # (B, Tx)
        inside = source.mask & (distance.abs() <= self.window)
        alpha = masked_softmax(products(query, source.keys), inside)
        alpha = alpha * torch.exp(-(distance**2) / (2 * (self.window / 2) ** 2))
        return Attended(expectation(alpha, source.values), alpha)


class MultiHeadAttention(nn.Module):
    """Scaled dot products in several subspaces, Vaswani et al. 2017, 3.2.2. No biases.

    head_k = softmax((W_Q s_{i-1})_k' (W_K h_j)_k / sqrt(n'/heads)) (W_V h_j)_k
    c_i    = W_O [head_1; ...; head_heads]

    `alpha` is the mean over heads.
    """

    def __init__(self, query_size: int, annotation_size: int, align_size: int, heads: int) -> None:
        super().__init__()
        self.context_size = annotation_size
        self.heads = heads
        self.W_Q = nn.Linear(query_size, align_size, bias=False)
        self.W_K = nn.Linear(annotation_size, align_size, bias=False)
        self.W_V = nn.Linear(annotation_size, annotation_size, bias=False)
        self.W_O = nn.Linear(annotation_size, annotation_size, bias=False)
        self.scale = (align_size // heads) ** -0.5

    def annotate(self, encoded: Encoded) -> Annotations:
        """Project keys and values of all heads."""
        h = encoded.h
        return Annotations(self.W_K(h), self.W_V(h), encoded.start, encoded.mask)

    def forward(self, query: Tensor, source: Annotations) -> Attended:
        """Look at the source with s_{i-1} (B, n)."""
        q = self.W_Q(query).unflatten(-1, (self.heads, -1))  # (B, H, n'/H)
        k, v = (t.unflatten(-1, (self.heads, -1)) for t in (source.keys, source.values))
        energy = self.scale * torch.einsum("bhd,bthd->bht", q, k)
        alpha = masked_softmax(energy, source.mask[:, None])  # (B, H, Tx)
        heads = torch.einsum("bht,bthd->bhd", alpha.to(v.dtype), v)
        return Attended(self.W_O(heads.flatten(1)), alpha.mean(dim=1))


class FixedContext(nn.Module):
    """No attention: every c_i is the last state of a forward encoder, the RNNencdec of Table 1.

    `alpha` is 1 on the last source position, the end symbol, from where that state comes.
    """

    def __init__(self, annotation_size: int) -> None:
        super().__init__()
        self.context_size = annotation_size

    def annotate(self, encoded: Encoded) -> Annotations:
        """Keep the annotations; there are no keys."""
        keys = encoded.h[..., :0]
        return Annotations(keys, encoded.h, encoded.start, encoded.mask)

    def forward(self, query: Tensor, source: Annotations) -> Attended:
        """Look at the end of the source, whatever the query."""
        last = source.mask.sum(dim=1) - 1
        alpha = nn.functional.one_hot(last, source.mask.shape[1]).to(query.dtype)
        return Attended(pick(source.values, last), alpha)


def masked_softmax(energy: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last dimension where `mask` is True, exactly 0 elsewhere, in float32 up.

    Every row needs one True: a source always has its end symbol.
    """
    wide = torch.promote_types(energy.dtype, torch.float32)
    return torch.softmax(energy.to(wide).masked_fill(~mask, -torch.inf), dim=-1)


def expectation(alpha: Tensor, values: Tensor) -> Tensor:
    """Return sum_j alpha_ij h_j (B, 2n), Eq. (5), from (B, Tx) and (B, Tx, 2n)."""
    return torch.bmm(alpha[:, None].to(values.dtype), values).squeeze(1)


def products(query: Tensor, keys: Tensor) -> Tensor:
    """Return the dot product of each key (B, Tx, n) with its query (B, n), as (B, Tx)."""
    return torch.bmm(keys, query[..., None].to(keys.dtype)).squeeze(-1)
