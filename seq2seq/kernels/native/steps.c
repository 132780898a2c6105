/* What a step of a recurrence does besides its products, and the cost of the output layer.
 *
 * Arrays are in rows without gaps unless a distance of rows is given, in elements. `narrow` says
 * that an array has bfloat16; all arithmetic is in float32. Rows are independent of each other and
 * shared among threads in one fixed order, so results repeat themselves. What is not a number
 * stays so: divergence must show.
 */
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef __GLIBC__ /* known after the headers above */
#include <malloc.h>
#endif

typedef int64_t size;

/* exp(2 q) exp(2 k) of float32 is neither infinite times zero nor lost while both stay below. */
#define LIMIT 40.0f

/* A region of threads costs some microseconds: too much for fewer elements. */
#define WORTH_THREADS 8192

/* Logits that are looked at together before one of them is. */
#define BLOCK 64

static inline float widened(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

static inline uint16_t narrowed(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    uint32_t to_even = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(x == x ? to_even : 0x7fc0);
}

/* e^x to 1e-7: a polynomial on [-ln 2 / 2, ln 2 / 2], times a power of two. */
static inline float exponential(float x)
{
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float whole = rintf(x * 1.44269504f);
    float rest = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * rest + 1.0f / 720;
    p = p * rest + 1.0f / 120;
    p = p * rest + 1.0f / 24;
    p = p * rest + 1.0f / 6;
    p = p * rest + 0.5f;
    p = p * rest + 1.0f;
    p = p * rest + 1.0f;
    int32_t power = (int32_t)(x == x ? whole : 0.0f);
    uint32_t bits = (uint32_t)(power + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

static inline float tangent(float x) { return 1.0f - 2.0f / (1.0f + exponential(2.0f * x)); }

/* n elements from `at` in float32: in place, or in `room`. */
static inline const float *read_row(const void *from, int narrow, size at, size n, float *room)
{
    if (!narrow)
        return (const float *)from + at;
    const uint16_t *halves = (const uint16_t *)from + at;
#pragma omp simd
    for (size k = 0; k < n; k++)
        room[k] = widened(halves[k]);
    return room;
}

static inline void write_row(void *to, int narrow, size at, size n, const float *row)
{
    if (!narrow) {
        memcpy((float *)to + at, row, n * sizeof *row);
        return;
    }
    uint16_t *halves = (uint16_t *)to + at;
#pragma omp simd
    for (size k = 0; k < n; k++)
        halves[k] = narrowed(row[k]);
}

/* z and r of b rows, and r s for the product with U (A.1.1, the gate acts before U). */
void gates_before(const float *drive, const void *from_s, int from_narrow, size from_row,
                  const float *s, float *z_r, void *rs, int rs_narrow, size b, size n)
{
#pragma omp parallel for schedule(static) if (b * n > WORTH_THREADS)
    for (size row = 0; row < b; row++) {
        float room[2 * n], product[n];
        const float *from = read_row(from_s, from_narrow, row * from_row, 2 * n, room);
        const float *added = drive + row * 3 * n + n;
        float *z = z_r + row * 2 * n, *r = z + n;
#pragma omp simd
        for (size k = 0; k < 2 * n; k++)
            z[k] = sigmoid(added[k] + from[k]);
#pragma omp simd
        for (size k = 0; k < n; k++)
            product[k] = r[k] * s[row * n + k];
        write_row(rs, rs_narrow, row * n, n, product);
    }
}

/* z, r and the new state, where the reset gate acts on U s. States of `num_out` rows are wanted. */
void gates_after(const float *drive, const void *from_s, int from_narrow, size from_row,
                 const float *s, const void *Us, int Us_narrow, float *z_r, float *products,
                 float *candidates, float *out, size b, size num_out, size n)
{
#pragma omp parallel for schedule(static) if (b * n > WORTH_THREADS)
    for (size row = 0; row < b; row++) {
        float room[2 * n], other[n];
        const float *from = read_row(from_s, from_narrow, row * from_row, 2 * n, room);
        const float *product = read_row(Us, Us_narrow, row * n, n, other);
        const float *added = drive + row * 3 * n, *old = s + row * n;
        float *z = z_r + row * 2 * n, *r = z + n, *s_tilde = candidates + row * n;
#pragma omp simd
        for (size k = 0; k < 2 * n; k++)
            z[k] = sigmoid(added[n + k] + from[k]);
#pragma omp simd
        for (size k = 0; k < n; k++)
            s_tilde[k] = tangent(added[k] + r[k] * product[k]);
        memcpy(products + row * n, product, n * sizeof *product);
        if (row < num_out) {
            float *new = out + row * n;
#pragma omp simd
            for (size k = 0; k < n; k++)
                new[k] = old[k] + z[k] * (s_tilde[k] - old[k]);
        }
    }
}

/* s_tilde = tanh(drive + U (r s)) and the new state (1 - z) s + z s_tilde. */
void move(const float *drive, const float *s, const void *U_rs, int narrow, const float *z_r,
          float *candidates, float *out, size b, size num_out, size n)
{
#pragma omp parallel for schedule(static) if (b * n > WORTH_THREADS)
    for (size row = 0; row < b; row++) {
        float room[n];
        const float *product = read_row(U_rs, narrow, row * n, n, room);
        const float *added = drive + row * 3 * n, *old = s + row * n, *z = z_r + row * 2 * n;
        float *s_tilde = candidates + row * n;
#pragma omp simd
        for (size k = 0; k < n; k++)
            s_tilde[k] = tangent(added[k] + product[k]);
        if (row < num_out) {
            float *new = out + row * n;
#pragma omp simd
            for (size k = 0; k < n; k++)
                new[k] = old[k] + z[k] * (s_tilde[k] - old[k]);
        }
    }
}

/* Back to candidate and z; to r, too, where it acts on U s (`products`, else null).
 *
 * at_new and at_old may be null. `factor` is what U' multiplies next; d_old becomes the gradient
 * of s_{i-1} but for what comes by U and the gates.
 */
void gates_back(const float *d_s, const float *at_new, const float *at_old, const float *z_r,
                const float *candidates, const float *s_prev, const float *products,
                float *d_drive, void *factor, int narrow, float *d_old, size b, size n)
{
#pragma omp parallel for schedule(static) if (b * n > WORTH_THREADS)
    for (size row = 0; row < b; row++) {
        float d_new[n], into_U[n];
        const float *z = z_r + row * 2 * n, *r = z + n;
        const float *s_tilde = candidates + row * n, *old = s_prev + row * n;
        float *d_candidate = d_drive + row * 3 * n, *d_z = d_candidate + n, *d_r = d_z + n;
        float *d_before = d_old + row * n;
        memcpy(d_new, d_s + row * n, sizeof d_new);
        if (at_new) {
#pragma omp simd
            for (size k = 0; k < n; k++)
                d_new[k] += at_new[row * n + k];
        }
#pragma omp simd
        for (size k = 0; k < n; k++) {
            d_candidate[k] = d_new[k] * z[k] * (1.0f - s_tilde[k] * s_tilde[k]);
            d_z[k] = d_new[k] * (s_tilde[k] - old[k]) * z[k] * (1.0f - z[k]);
            d_before[k] = d_new[k] * (1.0f - z[k]);
        }
        if (at_old) {
#pragma omp simd
            for (size k = 0; k < n; k++)
                d_before[k] += at_old[row * n + k];
        }
        if (products) {
            const float *Us = products + row * n;
#pragma omp simd
            for (size k = 0; k < n; k++) {
                d_r[k] = d_candidate[k] * r[k] * (1.0f - r[k]) * Us[k];
                into_U[k] = d_candidate[k] * r[k];
            }
        }
        write_row(factor, narrow, row * n, n, products ? into_U : d_candidate);
    }
}

/* Back from r s to r and s. */
void reset_back(const void *d_rs, int narrow, const float *z_r, const float *s_prev,
                float *d_drive, float *d_old, size b, size n)
{
#pragma omp parallel for schedule(static) if (b * n > WORTH_THREADS)
    for (size row = 0; row < b; row++) {
        float room[n];
        const float *d_product = read_row(d_rs, narrow, row * n, n, room);
        const float *r = z_r + row * 2 * n + n, *old = s_prev + row * n;
        float *d_r = d_drive + row * 3 * n + 2 * n, *d_before = d_old + row * n;
#pragma omp simd
        for (size k = 0; k < n; k++) {
            d_r[k] = d_product[k] * r[k] * (1.0f - r[k]) * old[k];
            d_before[k] += d_product[k] * r[k];
        }
    }
}

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

/* base + sum_j alpha_j Ch_j for `times` queries of each of b sentences; notes q and alpha.
 *
 * keys, exp_keys (B, Tx, n'), Ch (B, Tx, width), mask (B, Tx); `sentences` (b) says which of the B
 * are asked, null that they are the first ones. base and queries (rows, n') may be null.
 */
void look(const void *q, int narrow, size q_row, const float *keys, const float *exp_keys,
          int keys_are_small, const float *v, const uint8_t *mask, const float *Ch,
          const int64_t *sentences, const float *base, float *drive, float *queries, float *alphas,
          size b, size times, size Tx, size n_align, size width)
{
#pragma omp parallel for schedule(static) if (b * times * Tx * n_align > WORTH_THREADS)
    for (size row = 0; row < b * times; row++) {
        float room[n_align], query[n_align], energy[Tx];
        size at = sentences ? sentences[row / times] : row / times;
        const float *asked = read_row(q, narrow, row * q_row, n_align, room);
        if (queries)
            memcpy(queries + row * n_align, asked, sizeof room);
        int factored = prepare(asked, n_align, keys_are_small, query);
        const float *seen = (factored ? exp_keys : keys) + at * Tx * n_align;
        row_energies(query, seen, factored, v, mask + at * Tx, Tx, n_align, energy);
        float *alpha = alphas + row * Tx, *sum = drive + row * width;
        row_softmax(energy, Tx, alpha);
        if (base)
            memcpy(sum, base + row * width, width * sizeof *sum);
        else
            memset(sum, 0, width * sizeof *sum);
        for (size j = 0; j < Tx; j++) {
            const float *value = Ch + (at * Tx + j) * width, share = alpha[j];
            if (share == 0.0f)
                continue;
#pragma omp simd
            for (size k = 0; k < width; k++)
                sum[k] += share * value[k];
        }
    }
}

/* Back through the weighted sum, softmax and tanh.
 *
 * Writes the gradient of queries, and adds to those of keys, still without the factor v, and of v,
 * of each sentence alone.
 */
void look_back(const float *d_drive, const float *d_alphas, const float *alphas,
               const float *queries, const float *keys, const float *exp_keys, int keys_are_small,
               const float *v, const float *Ch, float *d_queries, size d_queries_row,
               float *d_keys, float *d_v, size b, size Tx, size n_align, size width)
{
#pragma omp parallel for schedule(static) if (b * Tx * n_align > WORTH_THREADS)
    for (size row = 0; row < b; row++) {
        float query[n_align], d_q[n_align], d_alpha[Tx], mean = 0.0f;
        const float *alpha = alphas + row * Tx, *d_sum = d_drive + row * width;
        for (size j = 0; j < Tx; j++) {
            const float *value = Ch + (row * Tx + j) * width;
            float sum = 0.0f;
            if (alpha[j] == 0.0f) { /* its share of everything below is 0 */
                d_alpha[j] = 0.0f;
                continue;
            }
#pragma omp simd reduction(+ : sum)
            for (size k = 0; k < width; k++)
                sum += d_sum[k] * value[k];
            d_alpha[j] = sum + d_alphas[row * Tx + j];
            mean += alpha[j] * d_alpha[j];
        }
        int factored = prepare(queries + row * n_align, n_align, keys_are_small, query);
        const float *seen = (factored ? exp_keys : keys) + row * Tx * n_align;
        float *of_v = d_v + row * n_align;
        memset(d_q, 0, sizeof d_q);
        for (size j = 0; j < Tx; j++) {
            const float *key = seen + j * n_align, d_energy = alpha[j] * (d_alpha[j] - mean);
            float *d_key = d_keys + (row * Tx + j) * n_align;
            if (alpha[j] == 0.0f)
                continue;
#pragma omp simd
            for (size k = 0; k < n_align; k++) {
                float R = complement(query[k], key[k], factored);
                float slope = 4.0f * d_energy * R * (1.0f - R);
                d_key[k] += slope;
                d_q[k] += slope;
                of_v[k] -= 2.0f * d_energy * R;
            }
        }
#pragma omp simd
        for (size k = 0; k < n_align; k++)
            d_queries[row * d_queries_row + k] = v[k] * d_q[k];
    }
}

/* Softmax, cost and the gradient of logits (rows, K), which takes their place.
 *
 * Of targets of 1 - smoothing on the reference and smoothing / K everywhere; bias may be null.
 * Writes -log p of each row's target and the mean of -log p over all words, and adds the gradient
 * of each row to that of the bias of its share of rows, d_b (shares, K). A row may be too long for
 * a thread's stack: each share works in its row of `room` (shares, K).
 */
void cost(void *logits, int narrow, const float *bias, const int64_t *targets, float smoothing,
          int differentiated, float *nll, float *spread, float *d_b, float *room, size shares,
          size rows, size K)
{
#pragma omp parallel for schedule(static) if (rows * K > WORTH_THREADS)
    for (size share = 0; share < shares; share++) {
        float *const of_b = d_b + share * K, *const logit = room + share * K;
        size first = rows * share / shares, end = rows * (share + 1) / shares;
        for (size row = first; row < end; row++) {
            float top = -INFINITY, sum = 0.0f, below = 0.0f;
            const float *read = read_row(logits, narrow, row * K, K, logit);
#pragma omp simd reduction(max : top)
            for (size k = 0; k < K; k++) {
                logit[k] = read[k] + (bias ? bias[k] : 0.0f);
                top = logit[k] > top ? logit[k] : top;
            }
            float of_target = logit[targets[row]] - top;
#pragma omp simd reduction(+ : sum, below)
            for (size k = 0; k < K; k++) {
                below += logit[k] - top;
                logit[k] = exponential(logit[k] - top);
                sum += logit[k];
            }
            nll[row] = logf(sum) - of_target;
            spread[row] = logf(sum) - below / K;
            if (!differentiated)
                continue;
            float scale = 1.0f / sum, less = smoothing / K;
#pragma omp simd
            for (size k = 0; k < K; k++)
                logit[k] = logit[k] * scale - less;
            logit[targets[row]] -= 1.0f - smoothing;
#pragma omp simd
            for (size k = 0; k < K; k++)
                of_b[k] += logit[k];
            write_row(logits, narrow, row * K, K, logit);
        }
    }
}

/* The best `count` words of each row of logits (rows, K), the best first, and log sum_k exp.
 *
 * Words where `blocked` (K) is not 0, and `eos` in rows that are `too_early`, count in the sum and
 * are not among the best: rows that run out of others end in -inf. Of equals the first wins. Logits
 * plus bias, which may be null, are worked on in `room` (shares, K).
 */
void best_words(const void *logits, int narrow, const float *bias, const uint8_t *blocked, size eos,
                const uint8_t *too_early, float *values, int64_t *words, float *log_sums,
                float *room, size shares, size rows, size K, size count)
{
#pragma omp parallel for schedule(static) if (rows * K > WORTH_THREADS)
    for (size share = 0; share < shares; share++) {
        float *const logit = room + share * K;
        size first = rows * share / shares, end = rows * (share + 1) / shares;
        for (size row = first; row < end; row++) {
            float top = -INFINITY, sum = 0.0f;
            float *best = values + row * count;
            int64_t *found = words + row * count;
            const float *read = read_row(logits, narrow, row * K, K, logit);
#pragma omp simd reduction(max : top)
            for (size k = 0; k < K; k++) {
                logit[k] = read[k] + (bias ? bias[k] : 0.0f);
                top = logit[k] > top ? logit[k] : top;
            }
#pragma omp simd reduction(+ : sum)
            for (size k = 0; k < K; k++)
                sum += exponential(logit[k] - top);
            log_sums[row] = top + logf(sum);
#pragma omp simd
            for (size k = 0; k < K; k++)
                logit[k] = blocked[k] ? -INFINITY : logit[k];
            if (too_early[row])
                logit[eos] = -INFINITY;
            for (size i = 0; i < count; i++) {
                best[i] = -INFINITY;
                found[i] = i;
            }
            for (size from = 0; from < K; from += BLOCK) {
                size to = from + BLOCK < K ? from + BLOCK : K;
                int any = 0;
#pragma omp simd reduction(| : any)
                for (size k = from; k < to; k++)
                    any |= logit[k] > best[count - 1];
                if (!any)
                    continue;
                for (size k = from; k < to; k++) {
                    if (!(logit[k] > best[count - 1]))
                        continue;
                    size i = count - 1;
                    for (; i > 0 && logit[k] > best[i - 1]; i--) {
                        best[i] = best[i - 1];
                        found[i] = found[i - 1];
                    }
                    best[i] = logit[k];
                    found[i] = k;
                }
            }
        }
    }
}

/* Logits of `count` words of each row: t (rows, l) times rows of the weight (K, l), plus bias. */
void logits_of(const float *t, const float *weight, const float *bias, const int64_t *words,
               float *logits, size rows, size count, size l)
{
#pragma omp parallel for schedule(static) if (rows * count * l > WORTH_THREADS)
    for (size i = 0; i < rows * count; i++) {
        const float *seen = t + i / count * l, *of_word = weight + words[i] * l;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (size k = 0; k < l; k++)
            sum += seen[k] * of_word[k];
        logits[i] = sum + (bias ? bias[words[i]] : 0.0f);
    }
}

/* Keep freed memory for the next update, which asks for as much: fresh pages have to be cleared. */
void keep_freed_memory(void)
{
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, INT_MAX);
    mallopt(M_TOP_PAD, 64 << 20);
#endif
}
