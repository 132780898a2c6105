"""Triton kernels for the steps of recurrences: everything but the matmuls, in few launches.

Sums are in float32, whatever the dtypes of inputs and outputs. No two programs add to the same
memory, so results are reproducible. In tensors over all words the rows of a step begin at `first`;
a step has b rows, for D directions. Sizes that vary between batches are not compiled in.
"""

import triton
import triton.language as tl

VARYING = ["first", "b", "num_out", "num_words", "Tx"]
"""Integers for which Triton would otherwise compile variants for 1 and for multiples of 16."""


@triton.jit
def tanh(x):
    """Return tanh, computed from the sigmoid."""
    return 2 * tl.sigmoid(2 * x) - 1


@triton.jit
def load(place, mask):
    """Read as float32, 0 where masked."""
    return tl.load(place, mask=mask, other=0).to(tl.float32)


@triton.jit(do_not_specialize=VARYING)
def energies(
    query, query_row, keys, mask, v_a, energy, queries, first, Tx, n_align,
    BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write e_j = v_a' tanh(q + k_j) for a block of positions of one sentence; block 0 saves q."""
    row = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    real = tl.load(mask + row * Tx + j, mask=j < Tx, other=0) != 0
    total = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    for start in range(0, n_align, BLOCK_N):
        k = start + tl.arange(0, BLOCK_N)
        q = load(query + row * query_row + k, k < n_align)
        key = load(keys + (row * Tx + j)[:, None] * n_align + k, real[:, None] & (k < n_align))
        total += load(v_a + k, k < n_align) * tanh(q + key)
        if tl.program_id(1) == 0:
            tl.store(queries + (first + row) * n_align + k, q, mask=k < n_align)
    tl.store(energy + row * Tx + j, tl.sum(total, axis=1), mask=j < Tx)


@triton.jit(do_not_specialize=VARYING)
def context(
    energy, mask, Ch, base, drive, alphas, first, Tx, width,
    BLOCK_TX: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write base + sum_j alpha_j Ch_j in a block of columns of one sentence; 0 saves alpha."""
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK_TX)
    real = tl.load(mask + row * Tx + j, mask=j < Tx, other=0) != 0
    e = tl.load(energy + row * Tx + j, mask=real, other=-float("inf"))
    top = tl.max(e, axis=0)
    norm = tl.sum(tl.exp(e - top), axis=0)
    if tl.program_id(1) == 0:
        tl.store(alphas + (first + row) * Tx + j, tl.exp(e - top) / norm, mask=j < Tx)
    k = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    for start in range(0, Tx, BLOCK_T):
        i = start + tl.arange(0, BLOCK_T)
        here = tl.load(mask + row * Tx + i, mask=i < Tx, other=0) != 0
        e_i = tl.load(energy + row * Tx + i, mask=here, other=-float("inf"))
        added = load(Ch + (row * Tx + i)[:, None] * width + k, here[:, None] & (k < width))
        total += (tl.exp(e_i - top) / norm)[:, None] * added
    found = load(base + row * width + k, k < width) + tl.sum(total, axis=0)
    tl.store(drive + row * width + k, found, mask=k < width)


@triton.jit(do_not_specialize=VARYING)
def context_backward(
    d_drive, Ch, mask, d_alphas, d_alpha, first, Tx, width,
    BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write d_alpha_j = Ch_j' d_drive + d_alphas_j for a block of positions of one sentence."""
    row = tl.program_id(0).to(tl.int64)
    j = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    real = tl.load(mask + row * Tx + j, mask=j < Tx, other=0) != 0
    total = tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    for start in range(0, width, BLOCK_N):
        k = start + tl.arange(0, BLOCK_N)
        added = load(Ch + (row * Tx + j)[:, None] * width + k, real[:, None] & (k < width))
        total += load(d_drive + (first + row) * width + k, k < width) * added
    found = tl.sum(total, axis=1) + load(d_alphas + (first + row) * Tx + j, real)
    tl.store(d_alpha + row * Tx + j, found, mask=j < Tx)


@triton.jit(do_not_specialize=VARYING)
def energies_backward(
    alphas, d_alpha, queries, keys, mask, v_a, d_queries, d_queries_row, d_keys, d_v,
    first, Tx, n_align,
    BLOCK_TX: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Backpropagate through softmax and tanh, for a block of units of one sentence.

    Writes the gradient of the query, and adds to those of v_a, which are kept per sentence, and of
    the keys, which still lack the factor v_a.
    """
    row = tl.program_id(0).to(tl.int64)
    j = tl.arange(0, BLOCK_TX)
    at = (first + row) * Tx + j
    mean = tl.sum(load(alphas + at, j < Tx) * load(d_alpha + row * Tx + j, j < Tx), axis=0)
    # Gradients, one block of positions at a time
    k = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    q = load(queries + (first + row) * n_align + k, k < n_align)
    d_q, d_v_k = tl.zeros((BLOCK_T, BLOCK_N), tl.float32), tl.zeros((BLOCK_T, BLOCK_N), tl.float32)
    for start in range(0, Tx, BLOCK_T):
        i = start + tl.arange(0, BLOCK_T)
        real = tl.load(mask + row * Tx + i, mask=i < Tx, other=0) != 0
        alpha = load(alphas + (first + row) * Tx + i, real)
        d_energy = (alpha * (load(d_alpha + row * Tx + i, real) - mean))[:, None]
        both, place = real[:, None] & (k < n_align), (row * Tx + i)[:, None] * n_align + k
        half = tl.sigmoid(2 * (q + load(keys + place, both)))  # tanh = 2 half - 1
        d_key = d_energy * 4 * half * (1 - half)
        tl.store(d_keys + place, load(d_keys + place, both) + d_key, mask=both)
        d_q += d_key
        d_v_k += d_energy * (2 * half - 1)
    # Sums over positions
    v = load(v_a + k, k < n_align)
    tl.store(
        d_queries + (first + row) * d_queries_row + k, v * tl.sum(d_q, axis=0), mask=k < n_align
    )
    mine = d_v + row * n_align + k
    tl.store(mine, load(mine, k < n_align) + tl.sum(d_v_k, axis=0), mask=k < n_align)


@triton.jit(do_not_specialize=VARYING)
def gates(
    drive, drive_d, s, s_d, from_s, from_s_d, from_s_row, Us, z_r, rs, saved_Us,
    candidates, new, out, out_d,
    first, b, num_out, num_words, n,
    RESET_BEFORE: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write z and r of a block of units of one row, and r s or, given U s, the new state."""
    line, d = tl.program_id(0).to(tl.int64), (tl.program_id(0) // b).to(tl.int64)
    row = line - d * b
    k = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    real = k < n
    at = d * num_words + first + row
    # Gates
    drive += d * drive_d + row * 3 * n + k
    from_s += d * from_s_d + row * from_s_row + k
    z = tl.sigmoid(load(drive + n, real) + load(from_s, real))
    r = tl.sigmoid(load(drive + 2 * n, real) + load(from_s + n, real))
    tl.store(z_r + at * 2 * n + k, z, mask=real)
    tl.store(z_r + at * 2 * n + n + k, r, mask=real)
    # r s for the matmul with U, or the new state
    old = load(s + d * s_d + row * n + k, real)
    if RESET_BEFORE:
        tl.store(rs + line * n + k, r * old, mask=real)
    else:
        product = load(Us + line * n + k, real)
        s_tilde = tanh(load(drive, real) + r * product)
        s_new = old + z * (s_tilde - old)
        tl.store(saved_Us + at * n + k, product, mask=real)
        tl.store(candidates + at * n + k, s_tilde, mask=real)
        tl.store(new + line * n + k, s_new, mask=real)
        tl.store(out + d * out_d + row * n + k, s_new, mask=real & (row < num_out))


@triton.jit(do_not_specialize=VARYING)
def move(
    drive, drive_d, s, s_d, U_rs, z_r, candidates, new, out, out_d,
    first, b, num_out, num_words, n,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Write s_tilde = tanh(drive + U (r s)) and (1 - z) s + z s_tilde: a block of one row."""
    line, d = tl.program_id(0).to(tl.int64), (tl.program_id(0) // b).to(tl.int64)
    row = line - d * b
    k = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    real = k < n
    at = d * num_words + first + row
    old, z = load(s + d * s_d + row * n + k, real), load(z_r + at * 2 * n + k, real)
    product = load(U_rs + line * n + k, real)
    s_tilde = tanh(load(drive + d * drive_d + row * 3 * n + k, real) + product)
    s_new = old + z * (s_tilde - old)
    tl.store(candidates + at * n + k, s_tilde, mask=real)
    tl.store(new + line * n + k, s_new, mask=real)
    tl.store(out + d * out_d + row * n + k, s_new, mask=real & (row < num_out))


@triton.jit(do_not_specialize=VARYING)
def gates_backward(
    d_s, d_s_d, at_new, at_new_d, at_old, at_old_d, z_r, candidates, s_prev, saved_Us,
    d_drive, operand, d_old,
    first, b, num_words, n,
    HAS_NEW: tl.constexpr, HAS_OLD: tl.constexpr, RESET_BEFORE: tl.constexpr,
    BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Backpropagate to candidate and z of a block of one row, and to r if it acts on U s.

    `operand` receives the input of the matmul with U', `d_old` the gradient of s_{i-1} via (1 - z).
    """
    line, d = tl.program_id(0).to(tl.int64), (tl.program_id(0) // b).to(tl.int64)
    row = line - d * b
    k = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    real = k < n
    at = d * num_words + first + row
    d_new = load(d_s + d * d_s_d + row * n + k, real)
    if HAS_NEW:
        d_new += load(at_new + d * at_new_d + row * n + k, real)
    z, r = load(z_r + at * 2 * n + k, real), load(z_r + at * 2 * n + n + k, real)
    s_tilde, old = load(candidates + at * n + k, real), load(s_prev + at * n + k, real)
    # Candidate and z
    d_candidate = d_new * z * (1 - s_tilde * s_tilde)
    d_drive += at * 3 * n + k
    tl.store(d_drive, d_candidate, mask=real)
    tl.store(d_drive + n, d_new * (s_tilde - old) * z * (1 - z), mask=real)
    # The previous state, and r if it acts on U s
    d_before = d_new * (1 - z)
    if HAS_OLD:
        d_before += load(at_old + d * at_old_d + row * n + k, real)
    tl.store(d_old + line * n + k, d_before, mask=real)
    if RESET_BEFORE:
        tl.store(operand + line * n + k, d_candidate, mask=real)
    else:
        slope = r * (1 - r) * load(saved_Us + at * n + k, real)
        tl.store(d_drive + 2 * n, d_candidate * slope, mask=real)
        tl.store(operand + line * n + k, d_candidate * r, mask=real)


@triton.jit(do_not_specialize=VARYING)
def reset_backward(
    d_rs, z_r, s_prev, d_drive, d_old, first, b, num_words, n, BLOCK_N: tl.constexpr
):  # fmt: skip
    """Backpropagate from r s to r and s, for a block of units of one row."""
    line, d = tl.program_id(0).to(tl.int64), (tl.program_id(0) // b).to(tl.int64)
    k = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    real = k < n
    at = d * num_words + first + line - d * b
    d_product, r = load(d_rs + line * n + k, real), load(z_r + at * 2 * n + n + k, real)
    slope = r * (1 - r) * load(s_prev + at * n + k, real)
    tl.store(d_drive + at * 3 * n + 2 * n + k, d_product * slope, mask=real)
    mine = d_old + line * n + k
    tl.store(mine, load(mine, real) + d_product * r, mask=real)
