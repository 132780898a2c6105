/* Products with weights by one thread alone: oneDNN's kernels, which torch brings along. */
#ifndef MATMUL_H
#define MATMUL_H

#include "arithmetic.h"

/* Columns of a weight that lie together. */
#define PANEL 64

/* Rows are multiplied in multiples of this number: oneDNN compiles a kernel for each number of them. */
#define ROWS 8

static inline size rounded(size x, size step) { return (x + step - 1) / step * step; }

/* Formats of operands: a format that is 0 or 1 is also the `bf16` of arithmetic.h.
 *
 * INT8 are whole numbers: rows of 0 to 255, each row with a scale of its own, times weights of -127
 * to 127, each column with a scale of its own. Their sums are exact, so a row's result depends on
 * no other row.
 */
enum format { FLOAT32, BFLOAT16, INT8 };

/* Bytes of a row in INT8 before its scale: they are multiplied in fours. */
static inline size in_fours(size K) { return rounded(K, 4); }

/* Length of a row of operands: those in bfloat16 are multiplied in pairs. */
static inline size depth(size K, int format)
{
    return format == INT8 ? in_fours(K) + 2 * (size)sizeof(float) : format ? rounded(K, 2) : K;
}

static inline size bytes_of(int format)
{
    return format == INT8 ? 1 : format ? sizeof(uint16_t) : sizeof(float);
}

/* out (rows, N) = x (rows, K) B, with B as `pack_weight` has it, or as int8.py has it for INT8.
 *
 * x has rows of `depth`, zero where that exceeds K (in INT8, anything). Both x and out have space for
 * rounded(rows, ROWS) rows; what is in the last ones of out means nothing.
 */
void matmul(const void *x, int format, size rows, size K, const void *B, size N, float *out);

/* Write rows as operands. */
void to_operands(const float *from, size n, int format, size rows, void *to);

/* To be called by a thread after its last matmul. */
void matmuls_done(int format);

#endif
