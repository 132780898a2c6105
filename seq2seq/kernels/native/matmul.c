#include "matmul.h"

/* Words of a row that are laid out together, so that what is written stays in cache. */
#define TILE 16

typedef void kernel(int64_t M, int64_t N, int64_t K, int64_t x_row, int64_t B_row, int64_t out_row,
                    _Bool add, const void *x, const void *B, float *out, _Bool packed);
typedef void release(_Bool packed);

static kernel *of_floats, *of_pairs, *of_bytes; /* the last writes int32 */
static release *release_kernel;

/* Take the kernels of torch; called once. */
void take_kernels(void *floats, void *pairs, void *bytes, void *to_release)
{
    of_floats = (kernel *)floats;
    of_pairs = (kernel *)pairs;
    of_bytes = (kernel *)bytes;
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

/* x is about least + scale u, with u from 0 to 255; NaN and infinity make the whole row NaN. */
static void quantize_row(const float *x, size n, uint8_t *u)
{
    float least = INFINITY, most = -INFINITY, finite = 0.0f;
#pragma omp simd reduction(min : least) reduction(max : most) reduction(+ : finite)
    for (size k = 0; k < n; k++) {
        least = x[k] < least ? x[k] : least;
        most = x[k] > most ? x[k] : most;
        finite += 0.0f * x[k];
    }
    float scale = most / 255 - least / 255, steps = 1.0f / scale;
#pragma omp simd
    for (size k = 0; k < n; k++) {
        float step = (x[k] - least) * steps + 0.5f;
        u[k] = (uint8_t)(int32_t)(step < 255.0f ? step : 255.0f); /* 255 if it is NaN, too */
    }
    float of_row[] = {finite == 0.0f ? scale : NAN, least};
    memcpy(u + in_fours(n), of_row, sizeof of_row);
}

void to_operands(const float *from, size n, int format, size rows, void *to)
{
    for (size row = 0; row < rows; row++)
        if (format == INT8)
            quantize_row(from + row * n, n, (uint8_t *)to + row * depth(n, INT8));
        else
            write_row(to, format, row * depth(n, format), n, from + row * n);
}

/* In place, from sums of u w_q to those of x w, of a panel; see int8.py for its scales and sums. */
static void to_floats(const uint8_t *x, size rows, size K, size columns, const float *scale,
                      const float *sum, size N, float *out)
{
    for (size row = 0; row < rows; row++) {
        float of_row[2], *found = out + row * N;
        memcpy(of_row, x + row * depth(K, INT8) + in_fours(K), sizeof of_row);
#pragma omp simd
        for (size k = 0; k < columns; k++) {
            int32_t dot;
            memcpy(&dot, found + k, sizeof dot);
            found[k] = of_row[0] * scale[k] * (float)dot + of_row[1] * sum[k];
        }
    }
}

void matmul(const void *x, int format, size rows, size K, const void *B, size N, float *out)
{
    size deep = depth(K, format), num_rows = rounded(rows, ROWS);
    const float *scale = B, *sum = scale + rounded(N, PANEL);
    const int8_t *bytes = (const int8_t *)(sum + rounded(N, PANEL));
    for (size first = 0; first < N; first += PANEL) {
        size columns = N - first < PANEL ? N - first : PANEL;
        if (format == INT8) {
            of_bytes(num_rows, columns, in_fours(K), deep, PANEL, N, 0, x,
                     bytes + first * in_fours(K), out + first, 1);
            to_floats(x, rows, K, columns, scale + first, sum + first, N, out + first);
        } else if (format == BFLOAT16)
            of_pairs(num_rows, columns, deep, deep, PANEL, N, 0, x,
                     (const uint16_t *)B + first * deep, out + first, 1);
        else
            of_floats(num_rows, columns, deep, deep, PANEL, N, 0, x,
                      (const float *)B + first * deep, out + first, 0);
    }
}

void matmuls_done(int format) { release_kernel(format != FLOAT32); }
