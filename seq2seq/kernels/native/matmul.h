/* Products with weights by one thread alone: oneDNN's kernels, which torch brings along. */
#ifndef MATMUL_H
#define MATMUL_H

#include "arithmetic.h"

/* Columns of a weight that lie together. */
#define PANEL 64

/* Rows are multiplied in multiples of so many: oneDNN compiles a kernel for each number of them. */
#define ROWS 8

static inline size rounded(size x, size step) { return (x + step - 1) / step * step; }

/* Length of a row of operands: those in bfloat16 are multiplied in pairs. */
static inline size depth(size K, int bf16) { return bf16 ? rounded(K, 2) : K; }

/* out (rows, N) = x (rows, K) B, with B as `pack_weight` has it.
 *
 * x has rows of `depth`, zero where that exceeds K. Both x and out have space for
 * rounded(rows, ROWS) rows; what is in the last ones of out means nothing.
 */
void matmul(const void *x, int bf16, size rows, size K, const void *B, size N, float *out);

/* Write rows as operands. */
static inline void to_operands(const float *from, size n, int bf16, size rows, void *to)
{
    for (size row = 0; row < rows; row++)
        write_row(to, bf16, row * depth(n, bf16), n, from + row * n);
}

/* To be called by a thread after its last matmul. */
void matmuls_done(int bf16);

#endif
