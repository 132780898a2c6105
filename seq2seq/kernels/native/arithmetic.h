/* Formats and functions of numbers, of which rows are made.
 *
 * `bf16` says that an array has bfloat16; all arithmetic is in float32. What is not a number
 * stays so: divergence must show.
 */
#ifndef ARITHMETIC_H
#define ARITHMETIC_H

#include <math.h>
#include <stdint.h>
#include <string.h>

typedef int64_t size;

/* A region of threads costs some microseconds: too much for fewer elements. */
#define WORTH_THREADS 8192

static inline float from_bf16(uint16_t x)
{
    uint32_t bits = (uint32_t)x << 16;
    float found;
    memcpy(&found, &bits, sizeof found);
    return found;
}

static inline uint16_t to_bf16(float x)
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

/* n elements from `at` in float32: in place, or in `work`. */
static inline const float *read_row(const void *from, int bf16, size at, size n, float *work)
{
    if (!bf16)
        return (const float *)from + at;
    const uint16_t *halves = (const uint16_t *)from + at;
#pragma omp simd
    for (size k = 0; k < n; k++)
        work[k] = from_bf16(halves[k]);
    return work;
}

static inline void write_row(void *to, int bf16, size at, size n, const float *row)
{
    if (!bf16) {
        memcpy((float *)to + at, row, n * sizeof *row);
        return;
    }
    uint16_t *halves = (uint16_t *)to + at;
#pragma omp simd
    for (size k = 0; k < n; k++)
        halves[k] = to_bf16(row[k]);
}

#endif
