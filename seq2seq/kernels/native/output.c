/* The output_loss of the output layer.
 *
 * Rows are independent of each other and shared among threads in one fixed order, so results repeat
 * themselves.
 */
#include "arithmetic.h"

/* Softmax, output_loss and the gradient of logits (rows, K), which takes their place.
 *
 * Of targets of 1 - smoothing on the reference and smoothing / K everywhere; bias may be null.
 * Writes -log p of each row's target and the mean of -log p over all words, and adds the gradient
 * of each row to that of the bias of its share of rows, d_b (shares, K). A row may be too long for
 * a thread's stack: each share works in its row of `work` (shares, K).
 */
void output_loss(void *logits, int bf16, const float *bias, const int64_t *targets, float smoothing,
          int differentiated, float *loss, float *spread, float *d_b, float *work, size shares,
          size rows, size K)
{
#pragma omp parallel for schedule(static) if (rows * K > WORTH_THREADS)
    for (size share = 0; share < shares; share++) {
        float *const of_b = d_b + share * K, *const logit = work + share * K;
        size first = rows * share / shares, end = rows * (share + 1) / shares;
        for (size row = first; row < end; row++) {
            float top = -INFINITY, sum = 0.0f, below = 0.0f;
            const float *read = read_row(logits, bf16, row * K, K, logit);
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
            loss[row] = logf(sum) - of_target;
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
            write_row(logits, bf16, row * K, K, logit);
        }
    }
}
