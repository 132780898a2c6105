#include "matmul.h"

/* Words of a row that are laid out together, so that what is written stays in cache. */
#define TILE 16

typedef void kernel(int64_t M, int64_t N, int64_t K, int64_t x_row, int64_t B_row, int64_t out_row,
                    _Bool add, const void *x, const void *B, float *out, _Bool in_pairs);
typedef void release(_Bool in_pairs);

static kernel *of_floats, *of_pairs;
static release *release_kernel;

/* Take the kernels of torch; called once. */
void take_kernels(void *floats, void *pairs, void *to_release)
{
    of_floats = (kernel *)floats;
    of_pairs = (kernel *)pairs;
    release_kernel = (release *)to_release;
}

/* A panel of B, in words of 32 bits: a float each, or two of a column in bfloat16. B' is given. */
static void panel_of_rows(const float *rows, size K, size columns, int bf16, uint32_t *panel)
{
    size in_word = bf16 ? 2 : 1;
    for (size from = 0; from < K; from += TILE * in_word)
        for (size column = 0; column < PANEL; column++) {
            uint32_t words[TILE] = {0};
            size left = K - from < TILE * in_word ? K - from : TILE * in_word;
            if (column < columns)
                write_row(words, bf16, 0, left, rows + column * K + from);
            for (size i = 0; i * in_word < left; i++)
                panel[(from / in_word + i) * PANEL + column] = words[i];
        }
}

/* The same, B is given, its rows `width` apart. */
static void panel_of_columns(const float *weight, size width, size K, size columns, int bf16,
                             uint32_t *panel)
{
    for (size k = 0; k < K; k += bf16 ? 2 : 1, panel += PANEL) {
        uint16_t upper[PANEL] = {0}, lower[PANEL] = {0};
        memset(panel, 0, PANEL * sizeof *panel);
        if (!bf16) {
            memcpy(panel, weight + k * width, columns * sizeof *panel);
            continue;
        }
        write_row(upper, 1, 0, columns, weight + k * width);
        if (k + 1 < K)
            write_row(lower, 1, 0, columns, weight + (k + 1) * width);
#pragma omp simd
        for (size column = 0; column < PANEL; column++)
            panel[column] = upper[column] | (uint32_t)lower[column] << 16;
    }
}

/* Lay B (K, N) out in panels of columns, in bfloat16 with pairs of rows side by side.
 *
 * `transposed`: the weight is B' (N, K), else B itself. `to` has space for rounded(N, PANEL) columns
 * of `depth`; all of it is written.
 */
void pack_weight(const float *weight, int transposed, int bf16, uint32_t *to, size K, size N)
{
#pragma omp parallel for schedule(static) if (K * N > WORTH_THREADS)
    for (size first = 0; first < N; first += PANEL) {
        size columns = N - first < PANEL ? N - first : PANEL;
        uint32_t *panel = to + first * depth(K, bf16) / (bf16 ? 2 : 1);
        if (transposed)
            panel_of_rows(weight + first * K, K, columns, bf16, panel);
        else
            panel_of_columns(weight + first, N, K, columns, bf16, panel);
    }
}

void matmul(const void *x, int bf16, size rows, size K, const void *B, size N, float *out)
{
    size deep = depth(K, bf16), num_rows = rounded(rows, ROWS);
    for (size first = 0; first < N; first += PANEL) {
        size columns = N - first < PANEL ? N - first : PANEL;
        if (bf16)
            of_pairs(num_rows, columns, deep, deep, PANEL, N, 0, x,
                     (const uint16_t *)B + first * deep, out + first, 1);
        else
            of_floats(num_rows, columns, deep, deep, PANEL, N, 0, x,
                      (const float *)B + first * deep, out + first, 0);
    }
}

void matmuls_done(int bf16) { release_kernel(bf16); }
