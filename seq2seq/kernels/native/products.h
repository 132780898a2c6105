/* Products with weights by one thread alone: oneDNN's kernels, which torch brings along. */
#ifndef PRODUCTS_H
#define PRODUCTS_H

#include "arithmetic.h"

/* Columns of a weight that lie together. */
#define PANEL 64

/* Rows are multiplied in multiples of so many: oneDNN compiles a kernel for each number of them. */
#define ROWS 8

static inline size rounded(size x, size step) { return (x + step - 1) / step * step; }

/* Length of a row of factors: those in bfloat16 are multiplied in pairs. */
static inline size depth(size K, int narrow) { return narrow ? rounded(K, 2) : K; }

/* out (rows, N) = x (rows, K) B, with B as `lay_out` has it.
 *
 * x has rows of `depth`, zero where that exceeds K. Both x and out have room for
 * rounded(rows, ROWS) rows; what is in the last ones of out means nothing.
 */
void product(const void *x, int narrow, size rows, size K, const void *B, size N, float *out);

/* Write rows as factors. */
static inline void to_factors(const float *from, size n, int narrow, size rows, void *to)
{
    for (size row = 0; row < rows; row++)
        write_row(to, narrow, row * depth(n, narrow), n, from + row * n);
}

/* To be called by a thread after its last product. */
void products_done(int narrow);

#endif
