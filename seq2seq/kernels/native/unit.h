/* Some rows of a gated unit, by one thread. */
#ifndef UNIT_H
#define UNIT_H

#include <stdlib.h>

#include "matmul.h"

/* A gated unit, and the activations that its backward pass needs. */
struct unit {
    const void *U;     /* U, or U' in the backward pass */
    float *gates;      /* (N, 2n)  z, r */
    float *candidates; /* (N, n) */
    float *Us;   /* (N, n)  U s_{i-1}, where the reset gate acts on it; else null */
    int format; /* of U and of what it multiplies */
    size n;
};

/* Where a share of sentences is worked on. */
struct workspace {
    char *all;
    void *operand;        /* (rows, n) */
    void *wide_operand;   /* (rows, wide) */
    float *moved, *wide; /* (rows, n), (rows, wide) Us */
    float *drive;        /* (rows, 3n) */
};

static inline struct workspace workspace_for(size rows, size n, size wide, int format)
{
    struct workspace work;
    size element = bytes_of(format), full = rounded(rows, ROWS);
    size parts[] = {full * depth(n, format) * element, full * depth(wide, format) * element,
                    full * n * (size)sizeof(float), full * wide * (size)sizeof(float),
                    full * 3 * n * (size)sizeof(float)};
    size at[6] = {0};
    for (int i = 0; i < 5; i++)
        at[i + 1] = at[i] + rounded(parts[i], 64);
    work.all = aligned_alloc(64, at[5]);
    if (!work.all)
        abort();
    if (format == BFLOAT16 && (depth(n, format) != n || depth(wide, format) != wide))
        memset(work.all, 0, at[2]); /* what exceeds a row of operands has to be zero */
    work.operand = work.all;
    work.wide_operand = work.all + at[1];
    work.moved = (float *)(work.all + at[2]);
    work.wide = (float *)(work.all + at[3]);
    work.drive = (float *)(work.all + at[4]);
    return work;
}

/* z, r, s_tilde and s_i of rows `at` and on; `drive` is what word and context add, `from_s` what
 * s_{i-1} adds to z and r. s_{i-1} as an operand is in the workspace. (A.1.1, A.2.2)
 */
static inline void unit_forward(const struct unit *unit, const float *drive, const float *from_s,
                        size from_row, const float *s, size b, size at, float *new, size num_new,
                        struct workspace *work)
{
    size n = unit->n, deep = depth(n, unit->format) * bytes_of(unit->format);
    for (size row = 0; row < b; row++) {
        float *z = unit->gates + (at + row) * 2 * n, reset[n];
        const float *r = z + n, *old = s + row * n;
        const float *added = drive + row * 3 * n + n, *more = from_s + row * from_row;
#pragma omp simd
        for (size k = 0; k < 2 * n; k++)
            z[k] = sigmoid(added[k] + more[k]);
        if (unit->Us)
            continue;
#pragma omp simd
        for (size k = 0; k < n; k++)
            reset[k] = r[k] * old[k];
        to_operands(reset, n, unit->format, 1, (char *)work->operand + row * deep);
    }
    matmul(work->operand, unit->format, b, n, unit->U, n, work->moved);
    for (size row = 0; row < b; row++) {
        const float *z = unit->gates + (at + row) * 2 * n, *r = z + n, *old = s + row * n;
        const float *added = drive + row * 3 * n, *moved = work->moved + row * n;
        float *s_tilde = unit->candidates + (at + row) * n, *next = new + row * n;
        if (unit->Us) {
            memcpy(unit->Us + (at + row) * n, moved, n * sizeof *moved);
#pragma omp simd
            for (size k = 0; k < n; k++)
                s_tilde[k] = tangent(added[k] + r[k] * moved[k]);
        } else {
#pragma omp simd
            for (size k = 0; k < n; k++)
                s_tilde[k] = tangent(added[k] + moved[k]);
        }
        if (row >= num_new)
            continue;
#pragma omp simd
        for (size k = 0; k < n; k++)
            next[k] = old[k] + z[k] * (s_tilde[k] - old[k]);
    }
}

#endif
