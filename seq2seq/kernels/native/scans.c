/* Recurrences along packed sequences, Us included.
 *
 * Sentences are independent: each thread takes some of them from the first step to the last without
 * waiting for another. Step t holds `sizes[t]` rows, those of sentences that are
 * longer than t, the longest first; rows of all steps follow each other. Arrays named (N, ...) have
 * a row for each word. Weights are those of `pack_weight`. `bf16` is the compute dtype of
 * Us, and of what comes from and goes to Us before and after the scan.
 */
#include "attention.h"
#include "unit.h"

/* The steps of a scan. */
struct steps {
    const int64_t *sizes;
    size count, shares;
};

static size words_of(const struct steps *steps)
{
    size words = 0;
    for (size t = 0; t < steps->count; t++)
        words += steps->sizes[t];
    return words;
}

/* First sentence of a share, such that shares have about as many words. */
static size first_of_share(const struct steps *steps, size share)
{
    size words = words_of(steps), before = 0;
    for (size row = 0, t = steps->count; row < steps->sizes[0]; row++) {
        if (before * steps->shares >= words * share)
            return row;
        while (steps->sizes[t - 1] <= row)
            t--;
        before += t;
    }
    return steps->sizes[0];
}

/* Back from the gradient of s_i (b, n), less `at_new`, to those of drive, in the workspace, and of
 * s_{i-1}, but for what comes by the gates. at_new and at_old, gradients of s_i and s_{i-1} where
 * they are a result of the scan, may be null.
 */
static void unit_backward(const struct unit *unit, float *d_s, const float *at_new, const float *at_old,
                      const float *s, size b, size at, struct workspace *work)
{
    size n = unit->n, deep = depth(n, unit->format);
    for (size row = 0; row < b; row++) {
        const float *z = unit->gates + (at + row) * 2 * n, *r = z + n, *old = s + row * n;
        const float *s_tilde = unit->candidates + (at + row) * n;
        const float *new_more = at_new ? at_new + row * n : NULL;
        const float *old_more = at_old ? at_old + row * n : NULL;
        float *d_candidate = work->drive + row * 3 * n, *d_z = d_candidate + n, *d_r = d_z + n;
        float *d = d_s + row * n, into_U[n];
#pragma omp simd
        for (size k = 0; k < n; k++) {
            float d_new = d[k] + (new_more ? new_more[k] : 0.0f);
            d_candidate[k] = d_new * z[k] * (1.0f - s_tilde[k] * s_tilde[k]);
            d_z[k] = d_new * (s_tilde[k] - old[k]) * z[k] * (1.0f - z[k]);
            d[k] = d_new * (1.0f - z[k]) + (old_more ? old_more[k] : 0.0f);
        }
        if (unit->Us) {
            const float *Us = unit->Us + (at + row) * n;
#pragma omp simd
            for (size k = 0; k < n; k++) {
                d_r[k] = d_candidate[k] * r[k] * (1.0f - r[k]) * Us[k];
                into_U[k] = d_candidate[k] * r[k];
            }
        }
        write_row(work->operand, unit->format, row * deep, n, unit->Us ? into_U : d_candidate);
    }
    matmul(work->operand, unit->format, b, n, unit->U, n, work->moved);
    for (size row = 0; row < b; row++) {
        const float *r = unit->gates + (at + row) * 2 * n + n, *old = s + row * n;
        const float *from_U = work->moved + row * n;
        float *d_r = work->drive + row * 3 * n + 2 * n, *d = d_s + row * n;
        if (unit->Us) {
#pragma omp simd
            for (size k = 0; k < n; k++)
                d[k] += from_U[k];
        } else {
#pragma omp simd
            for (size k = 0; k < n; k++) {
                d_r[k] = from_U[k] * r[k] * (1.0f - r[k]) * old[k];
                d[k] += from_U[k] * r[k];
            }
        }
    }
}

static void add_rows(float *to, const float *more, size count)
{
#pragma omp simd
    for (size k = 0; k < count; k++)
        to[k] += more[k];
}

static void *element(void *array, int bf16, size at)
{
    return bf16 ? (void *)((uint16_t *)array + at) : (void *)((float *)array + at);
}

/* A unit forward: states (N, n) of words (N, 3n), from `start` (B, n), by U and [U_z, U_r]. */
static void gated_share(const struct steps *steps, size share, const struct unit *unit,
                       const void *U_gates, const void *words, const float *start, float *states)
{
    size n = unit->n, offset = 0, previous = 0;
    size first = first_of_share(steps, share), after = first_of_share(steps, share + 1);
    if (first == after) /* a sentence before has more words than a share */
        return;
    struct workspace work = workspace_for(after - first, n, 2 * n, unit->format);
    for (size t = 0; t < steps->count && steps->sizes[t] > first; t++) {
        size end = after < steps->sizes[t] ? after : steps->sizes[t], b = end - first;
        size at = offset + first;
        const float *s = t ? states + (previous + first) * n : start + first * n;
        to_operands(s, n, unit->format, b, work.operand);
        matmul(work.operand, unit->format, b, n, U_gates, 2 * n, work.wide);
        const float *drive = read_row(words, unit->format, at * 3 * n, b * 3 * n, work.drive);
        unit_forward(unit, drive, work.wide, 2 * n, s, b, at, states + at * n, b, &work);
        previous = offset;
        offset += steps->sizes[t];
    }
    matmuls_done(unit->format);
    free(work.all);
}

/* D units side by side over packed words; arrays of one follow those of the other. */
void gated_scan(const void *words, const float *start, const void *U, const void *U_gates,
                const int64_t *sizes, size count, float *states, float *gates, float *candidates,
                float *Us, int bf16, size shares, size D, size N, size n)
{
    const struct steps steps = {sizes, count, shares};
    size column = depth(n, bf16);
#pragma omp parallel for schedule(dynamic, 1)
    for (size task = 0; task < D * shares; task++) {
        size d = task % D;
        struct unit unit = {element((void *)U, bf16, d * rounded(n, PANEL) * column),
                            gates + d * N * 2 * n,
                            candidates + d * N * n,
                            Us ? Us + d * N * n : NULL,
                            bf16,
                            n};
        gated_share(&steps, task / D, &unit,
                   element((void *)U_gates, bf16, d * rounded(2 * n, PANEL) * column),
                   element((void *)words, bf16, d * N * 3 * n), start + d * sizes[0] * n,
                   states + d * N * n);
    }
}

/* What attention was asked and gave, and the gradients by it. */
struct attention {
    const struct inputs *inputs;
    const float *queries, *alphas, *d_alphas;
    void *d_from_state, *d_Ch;
    float *d_keys, *d_v;
};

/* Gradient of Ch (Tx, width) of one sentence: sum_i alpha_ij d_drive_i. */
static void context_backward(const struct steps *steps, const struct attention *of, size sentence,
                             const void *d_words, int bf16)
{
    size Tx = of->inputs->Tx, width = of->inputs->width;
    float sum[width], work[width];
    for (size j = 0; j < Tx; j++) {
        size offset = 0;
        memset(sum, 0, sizeof sum);
        for (size t = 0; t < steps->count && steps->sizes[t] > sentence; t++) {
            size at = offset + sentence;
            const float *d_drive = read_row(d_words, bf16, at * width, width, work);
            float share = of->alphas[at * Tx + j];
            offset += steps->sizes[t];
#pragma omp simd
            for (size k = 0; k < width; k++)
                sum[k] += share * d_drive[k];
        }
        write_row(of->d_Ch, bf16, (sentence * Tx + j) * width, width, sum);
    }
}

/* Back through the weighted sum, softmax and tanh of the query of a word, to the query.
 *
 * Adds to the gradients of the sentence's keys, still without the operand v, and of v.
 */
static void attend_backward(const struct attention *of, size sentence, size word,
                            const float *d_sum, float *d_q)
{
    const struct inputs *inputs = of->inputs;
    size Tx = inputs->Tx, n = inputs->n_align, width = inputs->width;
    const float *alpha = of->alphas + word * Tx, *d_alphas = of->d_alphas + word * Tx;
    float *d_keys = of->d_keys + sentence * Tx * n, *d_v = of->d_v + sentence * n;
    float query[n], d_alpha[Tx], work[width], mean = 0.0f;
    for (size j = 0; j < Tx; j++) {
        float sum = 0.0f;
        if (alpha[j] == 0.0f) { /* its share of everything below is 0 */
            d_alpha[j] = 0.0f;
            continue;
        }
        const float *value =
            read_row(inputs->Ch, inputs->Ch_bf16, (sentence * Tx + j) * width, width, work);
#pragma omp simd reduction(+ : sum)
        for (size k = 0; k < width; k++)
            sum += d_sum[k] * value[k];
        d_alpha[j] = sum + d_alphas[j];
        mean += alpha[j] * d_alpha[j];
    }
    int factored = prepare(of->queries + word * n, n, inputs->small, query);
    const float *keys = (factored ? inputs->exp_keys : inputs->keys) + sentence * Tx * n;
    memset(d_q, 0, n * sizeof *d_q);
    for (size j = 0; j < Tx; j++) {
        const float *key = keys + j * n;
        float *d_key = d_keys + j * n, d_energy = alpha[j] * (d_alpha[j] - mean);
        if (alpha[j] == 0.0f)
            continue;
#pragma omp simd
        for (size k = 0; k < n; k++) {
            float R = complement(query[k], key[k], factored);
            float slope = 4.0f * d_energy * R * (1.0f - R);
            d_key[k] += slope;
            d_q[k] += slope;
            d_v[k] -= 2.0f * d_energy * R;
        }
    }
#pragma omp simd
    for (size k = 0; k < n; k++)
        d_q[k] *= inputs->v[k];
}

/* A unit backward, with the weights on its state: gradients of words (N, 3n), and of the first
 * states (B, n), which begin as 0. d_states are of the states after each step or, with attention
 * (else null), before it.
 */
static void share_backward(const struct steps *steps, size share, const struct unit *unit,
                           const struct attention *of, const void *on_state, const float *before,
                           const float *d_states, void *d_words, float *d_start)
{
    size n = unit->n, n_align = of ? of->inputs->n_align : 0, wide = n_align + 2 * n;
    size deep = depth(wide, unit->format), offset = words_of(steps);
    size first = first_of_share(steps, share), after = first_of_share(steps, share + 1);
    if (first == after) /* a sentence before has more words than a share */
        return;
    struct workspace work = workspace_for(after - first, n, wide, unit->format);
    for (size t = steps->count - 1; t >= 0; t--) {
        offset -= steps->sizes[t];
        if (steps->sizes[t] <= first)
            continue;
        size end = after < steps->sizes[t] ? after : steps->sizes[t], b = end - first;
        size at = offset + first;
        float *d_s = d_start + first * n;
        const float *d = d_states + at * n;
        unit_backward(unit, d_s, of ? NULL : d, of ? d : NULL, before + at * n, b, at, &work);
        for (size row = 0; row < b; row++) {
            float d_all[wide];
            const float *d_drive = work.drive + row * 3 * n;
            memcpy(d_all + n_align, d_drive + n, 2 * n * sizeof *d_all);
            if (of) {
                attend_backward(of, first + row, at + row, d_drive, d_all);
                write_row(of->d_from_state, unit->format, (at + row) * wide, wide, d_all);
            }
            write_row(d_words, unit->format, (at + row) * 3 * n, 3 * n, d_drive);
            write_row(work.wide_operand, unit->format, row * deep, wide, d_all);
        }
        matmul(work.wide_operand, unit->format, b, wide, on_state, n, work.moved);
        add_rows(d_s, work.moved, b * n);
    }
    for (size sentence = first; of && sentence < after; sentence++)
        context_backward(steps, of, sentence, d_words, unit->format);
    matmuls_done(unit->format);
    free(work.all);
}

/* `gated_scan` backward, with weights U' and [U_z, U_r]' and the state before each word (D, N, n). */
void gated_scan_backward(const float *d_states, const float *before, const void *U, const void *U_gates,
                     const int64_t *sizes, size count, const float *gates, const float *candidates,
                     const float *Us, void *d_words, float *d_start, int bf16, size shares,
                     size D, size N, size n)
{
    const struct steps steps = {sizes, count, shares};
#pragma omp parallel for schedule(dynamic, 1)
    for (size task = 0; task < D * shares; task++) {
        size d = task % D, of_U = rounded(n, PANEL) * depth(n, bf16);
        struct unit unit = {element((void *)U, bf16, d * of_U),
                            (float *)gates + d * N * 2 * n,
                            (float *)candidates + d * N * n,
                            Us ? (float *)Us + d * N * n : NULL,
                            bf16,
                            n};
        size of_gates = rounded(n, PANEL) * depth(2 * n, bf16);
        share_backward(&steps, task / D, &unit, NULL, element((void *)U_gates, bf16, d * of_gates),
                       before + d * N * n, d_states + d * N * n,
                       element(d_words, bf16, d * N * 3 * n), d_start + d * sizes[0] * n);
    }
}

static void attentive_share(const struct steps *steps, size share, const struct unit *unit,
                            const struct inputs *inputs, const void *from_state, const void *words,
                            float *states, float *queries, float *alphas)
{
    size n = unit->n, n_align = inputs->n_align, wide = n_align + 2 * n, offset = 0;
    size first = first_of_share(steps, share), after = first_of_share(steps, share + 1);
    if (first == after) /* a sentence before has more words than a share */
        return;
    struct workspace work = workspace_for(after - first, n, wide, unit->format);
    for (size t = 0; t < steps->count && steps->sizes[t] > first; t++) {
        size end = after < steps->sizes[t] ? after : steps->sizes[t], b = end - first;
        size at = offset + first, next = t + 1 < steps->count ? steps->sizes[t + 1] : 0;
        size num_new = next <= first ? 0 : (end < next ? end : next) - first;
        offset += steps->sizes[t];
        const float *s = states + at * n;
        to_operands(s, n, unit->format, b, work.operand);
        matmul(work.operand, unit->format, b, n, from_state, wide, work.wide);
        for (size row = 0; row < b; row++) {
            float *query = queries + (at + row) * n_align, *drive = work.drive + row * 3 * n;
            memcpy(query, work.wide + row * wide, n_align * sizeof *query);
            const float *word = read_row(words, unit->format, (at + row) * 3 * n, 3 * n, drive);
            if (word != drive)
                memcpy(drive, word, 3 * n * sizeof *drive);
            attend(inputs, first + row, query, alphas + (at + row) * inputs->Tx, drive);
        }
        unit_forward(unit, work.drive, work.wide + n_align, wide, s, b, at, states + (offset + first) * n,
             num_new, &work);
    }
    matmuls_done(unit->format);
    free(work.all);
}

/* Attention and a gated unit along a target.
 *
 * words (N, 3n), U, from_state [W_a, U_z, U_r]; keys, exp_keys (B, Tx, n'), v (n'),
 * mask (B, Tx) and Ch (B, Tx, 3n), see attention.h. States (N, n) are s_{i-1}: those of the first
 * step are given, the others written, as are queries (N, n'), alphas (N, Tx) and what the backward pass of units needs.
 */
void attentive_scan(const void *words, const void *U, const void *from_state, const float *keys,
                    const float *exp_keys, int keys_are_small, const float *v, const uint8_t *mask,
                    const void *Ch, const int64_t *sizes, size count, float *states, float *queries,
                    float *alphas, float *gates, float *candidates, float *Us, int bf16,
                    size shares, size Tx, size n_align, size n)
{
    const struct steps steps = {sizes, count, shares};
    const struct unit unit = {U, gates, candidates, Us, bf16, n};
    const struct inputs inputs = {keys,   exp_keys, v,       mask, Ch, keys_are_small,
                              bf16, Tx,       n_align, 3 * n};
#pragma omp parallel for schedule(dynamic, 1)
    for (size share = 0; share < shares; share++)
        attentive_share(&steps, share, &unit, &inputs, from_state, words, states, queries, alphas);
}

/* `attentive_scan` backward, with weights U' and from_state'.
 *
 * d_from_state (N, n' + 2n) are gradients of what the state gives to query, z and r. d_start
 * (B, n), d_keys (B, Tx, n'), without the operand v, and d_v (B, n'), of each sentence, begin as 0.
 */
void attentive_scan_backward(const float *d_states, const float *d_alphas, const void *U,
                         const void *from_state, const float *keys, const float *exp_keys,
                         int keys_are_small, const float *v, const uint8_t *mask, const void *Ch,
                         const int64_t *sizes, size count, const float *states,
                         const float *queries, const float *alphas, const float *gates,
                         const float *candidates, const float *Us, void *d_words,
                         void *d_from_state, float *d_start, float *d_keys, float *d_v, void *d_Ch,
                         int bf16, size shares, size Tx, size n_align, size n)
{
    const struct steps steps = {sizes, count, shares};
    const struct unit unit = {U, (float *)gates, (float *)candidates, (float *)Us, bf16, n};
    const struct inputs inputs = {keys,   exp_keys, v,       mask, Ch, keys_are_small,
                              bf16, Tx,       n_align, 3 * n};
    const struct attention of = {&inputs,      queries, alphas, d_alphas,
                                 d_from_state, d_Ch,    d_keys, d_v};
#pragma omp parallel for schedule(dynamic, 1)
    for (size share = 0; share < shares; share++)
        share_backward(&steps, share, &unit, &of, from_state, states, d_states, d_words, d_start);
}
