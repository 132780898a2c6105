/* Additive attention of one query (A.1.2). */
#ifndef ATTENTION_H
#define ATTENTION_H

#include "arithmetic.h"

/* exp(2 q) exp(2 k) of float32 is neither infinite times zero nor lost while both stay below. */
#define LIMIT 40.0f

/* What attention reads, of B sentences. */
struct inputs {
    const float *keys, *exp_keys; /* (B, Tx, n'), and exp(2 keys) where `small` */
    const float *v;               /* (n') */
    const uint8_t *mask;          /* (B, Tx) */
    const void *Ch;               /* (B, Tx, width) */
    int small, Ch_bf16;
    size Tx, n_align, width;
};

/* R = 1 / (1 + exp(2 (q + k))) of one row: tanh = 1 - 2 R. `key` is exp(2 k) if `factored`, then
 * `query` is exp(2 q). */
static inline float complement(float query, float key, int factored)
{
    return 1.0f / (1.0f + (factored ? query * key : exponential(2.0f * (query + key))));
}

/* Prepare a query for `complement`; returns whether exponentials can be taken apart. */
static inline int prepare(const float *q, size n, int keys_are_small, float *query)
{
    int small = keys_are_small;
    for (size k = 0; k < n; k++)
        small &= fabsf(q[k]) <= LIMIT;
    if (!small) {
        memcpy(query, q, n * sizeof *q);
        return 0;
    }
#pragma omp simd
    for (size k = 0; k < n; k++)
        query[k] = exponential(2.0f * q[k]);
    return 1;
}

/* Energies less a constant of one row; the `keys` that belong to the answer of `prepare`. */
static inline void row_energies(const float *query, const float *keys, int factored,
                                const float *v, const uint8_t *mask, size Tx, size n, float *energy)
{
    for (size j = 0; j < Tx; j++) {
        float sum = 0.0f;
        const float *key = keys + j * n;
        if (!mask[j]) {
            energy[j] = -INFINITY;
        } else if (factored) {
#pragma omp simd reduction(+ : sum)
            for (size k = 0; k < n; k++)
                sum += v[k] * complement(query[k], key[k], 1);
            energy[j] = -2.0f * sum;
        } else {
#pragma omp simd reduction(+ : sum)
            for (size k = 0; k < n; k++)
                sum += v[k] * complement(query[k], key[k], 0);
            energy[j] = -2.0f * sum;
        }
    }
}

static inline void row_softmax(const float *energy, size Tx, float *alpha)
{
    float top = -INFINITY, sum = 0.0f;
    for (size j = 0; j < Tx; j++)
        top = energy[j] > top || energy[j] != energy[j] ? energy[j] : top;
    for (size j = 0; j < Tx; j++) {
        alpha[j] = energy[j] == -INFINITY ? 0.0f : expf(energy[j] - top);
        sum += alpha[j];
    }
    for (size j = 0; j < Tx; j++)
        alpha[j] /= sum;
}

/* alpha (Tx) of a query of a sentence; adds sum_j alpha_j Ch_j to `sum` (width). */
static inline void attend(const struct inputs *inputs, size sentence, const float *asked, float *alpha,
                          float *sum)
{
    size Tx = inputs->Tx, n = inputs->n_align, width = inputs->width;
    float query[n], energy[Tx], work[width];
    int factored = prepare(asked, n, inputs->small, query);
    const float *keys = (factored ? inputs->exp_keys : inputs->keys) + sentence * Tx * n;
    row_energies(query, keys, factored, inputs->v, inputs->mask + sentence * Tx, Tx, n, energy);
    row_softmax(energy, Tx, alpha);
    for (size j = 0; j < Tx; j++) {
        if (alpha[j] == 0.0f)
            continue;
        size at = (sentence * Tx + j) * width;
        const float *value = read_row(inputs->Ch, inputs->Ch_bf16, at, width, work);
        float share = alpha[j];
#pragma omp simd
        for (size k = 0; k < width; k++)
            sum[k] += share * value[k];
    }
}

#endif
