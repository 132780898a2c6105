/* A step of a search: rows are hypotheses, some of them in one thread at a time. */
#include "attention.h"
#include "unit.h"

/* Rows that a thread takes at a time: what it computes of them stays in cache. */
#define BLOCK 32

/* Logits that are compared together before one of them is. */
#define GROUP 64

/* What the output layer sees, attention, and what the next state is made of.
 *
 * s (rows, n); from_state [W_a, U_z, U_r, U_o]; word (rows, w), what y_{i-1} adds to the readout;
 * for keys and the like see attention.h, Ch has width 3n + w. `sentences` says which of these have
 * rows, `times` each. Writes drive (rows, 3n), what context and state add to candidate, z and r,
 * alphas (rows, Tx) and t: the larger of each pair of w if `maxout`, else tanh.
 */
void predict(const float *s, const void *from_state, const float *word, const float *keys,
             const float *exp_keys, int keys_are_small, const float *v, const uint8_t *mask,
             const float *Ch, const int64_t *sentences, float *drive, float *alphas, float *t,
             int maxout, size format, size rows, size times, size Tx, size n_align, size n, size w)
{
    size wide = n_align + 2 * n + w, width = 3 * n + w, found = maxout ? w / 2 : w;
    const struct inputs inputs = {keys, exp_keys, v, mask, Ch, keys_are_small, 0, Tx, n_align, width};
#pragma omp parallel
    {
        struct workspace work = workspace_for(BLOCK, n, wide, format);
#pragma omp for schedule(dynamic, 1)
        for (size first = 0; first < rows; first += BLOCK) {
            size b = rows - first < BLOCK ? rows - first : BLOCK;
            to_operands(s + first * n, n, format, b, work.operand);
            matmul(work.operand, format, b, n, from_state, wide, work.wide);
            for (size i = 0; i < b; i++) {
                size row = first + i;
                float *from_s = work.wide + i * wide, sum[width];
                memset(sum, 0, 3 * n * sizeof *sum);
                memcpy(sum + n, from_s + n_align, 2 * n * sizeof *sum);
                memcpy(sum + 3 * n, from_s + n_align + 2 * n, w * sizeof *sum);
                attend(&inputs, sentences[row / times], from_s, alphas + row * Tx, sum);
                memcpy(drive + row * 3 * n, sum, 3 * n * sizeof *sum);
                const float *t_tilde = sum + 3 * n, *more = word + row * w;
                float *to = t + row * found;
                if (maxout) {
#pragma omp simd
                    for (size k = 0; k < found; k++) {
                        float one = t_tilde[2 * k] + more[2 * k];
                        float other = t_tilde[2 * k + 1] + more[2 * k + 1];
                        to[k] = one > other || one != one ? one : other;
                    }
                } else {
#pragma omp simd
                    for (size k = 0; k < w; k++)
                        to[k] = tangent(t_tilde[k] + more[k]);
                }
            }
        }
        matmuls_done(format);
        free(work.all);
    }
}

/* States (rows, n) after the next word, which adds `word` (rows, 3n) to `drive` of `predict`. */
void advance(const float *s, const float *drive, const float *word, const void *U, int reset_before,
             float *next, size format, size rows, size n)
{
#pragma omp parallel
    {
        struct workspace work = workspace_for(BLOCK, n, 4 * n, format);
#pragma omp for schedule(dynamic, 1)
        for (size first = 0; first < rows; first += BLOCK) {
            size b = rows - first < BLOCK ? rows - first : BLOCK;
            float *gates = work.wide, *candidates = gates + 2 * n * b;
            float *Us = reset_before ? NULL : candidates + n * b;
            const struct unit unit = {U, gates, candidates, Us, format, n};
            const float *old = s + first * n;
            memcpy(work.drive, drive + first * 3 * n, b * 3 * n * sizeof *drive);
            for (size i = 0; i < b; i++)
                for (size k = 0; k < n; k++)
                    work.drive[i * 3 * n + k] += word[(first + i) * 3 * n + k];
            to_operands(old, n, format, b, work.operand);
            unit_forward(&unit, work.drive, word + first * 3 * n + n, 3 * n, old, b, 0, next + first * n, b,
                 &work);
        }
        matmuls_done(format);
        free(work.all);
    }
}

/* The `count` largest of K logits, the largest first; of equals the first wins. */
static void largest(const float *logit, size K, size count, float *best, int64_t *found)
{
    for (size i = 0; i < count; i++) {
        best[i] = -INFINITY;
        found[i] = i;
    }
    for (size from = 0; from < K; from += GROUP) {
        size to = from + GROUP < K ? from + GROUP : K;
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

/* The best `count` words of each row of t (rows, l) by an output layer W (l, K), and log sum exp.
 *
 * Words where `blocked` (K) is not 0, and `eos` in rows that are `too_early`, count in the sum and
 * are not among the best: rows that run out of others end in -inf. bias (K) may be null.
 */
void best_words(const float *t, const void *W, size format, const float *bias,
                const uint8_t *blocked, size eos, const uint8_t *too_early, float *values,
                int64_t *words, float *log_sums, size rows, size l, size K, size count)
{
#pragma omp parallel
    {
        struct workspace work = workspace_for(BLOCK, l, K, format);
#pragma omp for schedule(dynamic, 1)
        for (size first = 0; first < rows; first += BLOCK) {
            size b = rows - first < BLOCK ? rows - first : BLOCK;
            to_operands(t + first * l, l, format, b, work.operand);
            matmul(work.operand, format, b, l, W, K, work.wide);
            for (size row = first; row < first + b; row++) {
                float top = -INFINITY, sum = 0.0f, *logit = work.wide + (row - first) * K;
#pragma omp simd reduction(max : top)
                for (size k = 0; k < K; k++) {
                    logit[k] += bias ? bias[k] : 0.0f;
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
                largest(logit, K, count, values + row * count, words + row * count);
            }
        }
        matmuls_done(format);
        free(work.all);
    }
}

/* Words of a list that are multiplied together. */
#define LISTED 4

/* Products of t (l) with LISTED rows of a weight; their sums have the same order for any row. */
static void products(const float *t, const float *const w[LISTED], size l, float *found)
{
    const float *a = w[0], *b = w[1], *c = w[2], *d = w[3];
    float of_a = 0.0f, of_b = 0.0f, of_c = 0.0f, of_d = 0.0f;
#pragma omp simd reduction(+ : of_a, of_b, of_c, of_d)
    for (size k = 0; k < l; k++) {
        of_a += t[k] * a[k];
        of_b += t[k] * b[k];
        of_c += t[k] * c[k];
        of_d += t[k] * d[k];
    }
    found[0] = of_a, found[1] = of_b, found[2] = of_c, found[3] = of_d;
}

/* `best_words` in float32 among the N words of a list for each sentence, of `times` rows each.
 *
 * lists (sentences, N); weight (K, l). A row gets the same bytes whatever other rows there are.
 */
void best_listed(const float *t, const float *weight, const float *bias, const int64_t *lists,
                 const uint8_t *blocked, size eos, const uint8_t *too_early, float *values,
                 int64_t *words, float *log_sums, size sentences, size times, size l, size N,
                 size count)
{
    size width = rounded(N, LISTED);
#pragma omp parallel
    {
        float *logits = malloc(times * width * sizeof *logits);
        if (!logits)
            abort();
#pragma omp for schedule(dynamic, 1)
        for (size sentence = 0; sentence < sentences; sentence++) {
            const int64_t *list = lists + sentence * N;
            for (size at = 0; at < N; at += LISTED) {
                const float *w[LISTED];
                for (size i = 0; i < LISTED; i++)
                    w[i] = weight + list[at + i < N ? at + i : N - 1] * l;
                for (size row = 0; row < times; row++)
                    products(t + (sentence * times + row) * l, w, l, logits + row * width + at);
            }
            for (size i = 0; i < times; i++) {
                size row = sentence * times + i;
                float top = -INFINITY, sum = 0.0f, *logit = logits + i * width;
                for (size k = 0; bias && k < N; k++)
                    logit[k] += bias[list[k]];
#pragma omp simd reduction(max : top)
                for (size k = 0; k < N; k++)
                    top = logit[k] > top ? logit[k] : top;
#pragma omp simd reduction(+ : sum)
                for (size k = 0; k < N; k++)
                    sum += exponential(logit[k] - top);
                log_sums[row] = top + logf(sum);
                for (size k = 0; k < N; k++)
                    if (blocked[list[k]] || (too_early[row] && list[k] == eos))
                        logit[k] = -INFINITY;
                largest(logit, N, count, values + row * count, words + row * count);
                for (size k = 0; k < count; k++)
                    words[row * count + k] = list[words[row * count + k]];
            }
        }
        free(logits);
    }
}

/* Logits of `count` words of each row: t (rows, l) times rows of the weight (K, l), plus bias. */
void logits_of(const float *t, const float *weight, const float *bias, const int64_t *words,
               float *logits, size rows, size count, size l)
{
#pragma omp parallel for schedule(static) if (rows * count * l > WORTH_THREADS)
    for (size i = 0; i < rows * count; i++) {
        const float *inputs = t + i / count * l, *of_word = weight + words[i] * l;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (size k = 0; k < l; k++)
            sum += inputs[k] * of_word[k];
        logits[i] = sum + (bias ? bias[words[i]] : 0.0f);
    }
}
