/* Some rows of a gated unit, by one thread. */
#ifndef UNIT_H
#define UNIT_H

#include <stdlib.h>

#include "products.h"

/* A gated unit, and what it notes on the way forth. */
struct unit {
    const void *U;     /* U, or U' on the way back */
    float *gates;      /* (N, 2n)  z, r */
    float *candidates; /* (N, n) */
    float *products;   /* (N, n)  U s_{i-1}, where the reset gate acts on it; else null */
    int narrow;
    size n;
};

/* Where a share of sentences is worked on. */
struct room {
    char *all;
    void *factor;        /* (rows, n) */
    void *wide_factor;   /* (rows, wide) */
    float *moved, *wide; /* (rows, n), (rows, wide) products */
    float *drive;        /* (rows, 3n) */
};

static inline struct room room_for(size rows, size n, size wide, int narrow)
{
    struct room room;
    size element = narrow ? sizeof(uint16_t) : sizeof(float), full = rounded(rows, ROWS);
    size parts[] = {full * depth(n, narrow) * element, full * depth(wide, narrow) * element,
                    full * n * (size)sizeof(float), full * wide * (size)sizeof(float),
                    full * 3 * n * (size)sizeof(float)};
    size at[6] = {0};
    for (int i = 0; i < 5; i++)
        at[i + 1] = at[i] + rounded(parts[i], 64);
    room.all = aligned_alloc(64, at[5]);
    if (!room.all)
        abort();
    if (depth(n, narrow) != n || depth(wide, narrow) != wide)
        memset(room.all, 0, at[2]); /* what exceeds a row of factors has to be zero */
    room.factor = room.all;
    room.wide_factor = room.all + at[1];
    room.moved = (float *)(room.all + at[2]);
    room.wide = (float *)(room.all + at[3]);
    room.drive = (float *)(room.all + at[4]);
    return room;
}

/* z, r, s_tilde and s_i of rows `at` and on; `drive` is what word and context add, `from_s` what
 * s_{i-1} adds to z and r. Factors of s_{i-1} are in the room. (A.1.1, A.2.2)
 */
static inline void move(const struct unit *unit, const float *drive, const float *from_s,
                        size from_row, const float *s, size b, size at, float *new, size num_new,
                        struct room *room)
{
    size n = unit->n, deep = depth(n, unit->narrow);
    for (size row = 0; row < b; row++) {
        float *z = unit->gates + (at + row) * 2 * n, product[n];
        const float *r = z + n, *old = s + row * n;
        const float *added = drive + row * 3 * n + n, *more = from_s + row * from_row;
#pragma omp simd
        for (size k = 0; k < 2 * n; k++)
            z[k] = sigmoid(added[k] + more[k]);
        if (unit->products)
            continue;
#pragma omp simd
        for (size k = 0; k < n; k++)
            product[k] = r[k] * old[k];
        write_row(room->factor, unit->narrow, row * deep, n, product);
    }
    product(room->factor, unit->narrow, b, n, unit->U, n, room->moved);
    for (size row = 0; row < b; row++) {
        const float *z = unit->gates + (at + row) * 2 * n, *r = z + n, *old = s + row * n;
        const float *added = drive + row * 3 * n, *moved = room->moved + row * n;
        float *s_tilde = unit->candidates + (at + row) * n, *next = new + row * n;
        if (unit->products) {
            memcpy(unit->products + (at + row) * n, moved, n * sizeof *moved);
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
