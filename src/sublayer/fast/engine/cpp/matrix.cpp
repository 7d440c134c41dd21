// Packing and unpacking. See matrix.h for the layouts.
#include "matrix.h"

#include <math.h>
#include <string.h>

static float from_bits(uint32_t bits) {
    float number;
    memcpy(&number, &bits, 4);
    return number;
}

static uint32_t to_bits(float number) {
    uint32_t bits;
    memcpy(&bits, &number, 4);
    return bits;
}

float half_to_float(uint16_t half) {
    const uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = half & 0x7fff;
    if (rest >= 0x7c00) return from_bits(sign | 0x7f800000 | (rest & 0x3ff) << 13);
    if (rest < 0x400) return from_bits(sign | to_bits((float)rest * 0x1p-24f));
    return from_bits(sign | ((rest << 13) + (112u << 23)));
}

// To the nearest, halves to the even one.
static uint16_t float_to_half(float number) {
    const uint32_t bits = to_bits(number), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return (uint16_t)(sign | 0x7e00);
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    // Added to 0.5, a number below 2^-14 has the spacing of float16's smallest in its last bit.
    if (rest < 0x38800000) return (uint16_t)(sign | (to_bits(from_bits(rest) + 0.5f) - 0x3f000000));
    return (uint16_t)(sign | (rest - (112u << 23) + 0xfff + (rest >> 13 & 1)) >> 13);
}

static uint16_t float_to_bfloat16(float number) {
    const uint32_t bits = to_bits(number);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float largest_magnitude(const float* numbers, int64_t count) {
    // As whole numbers magnitudes have the same order, and a compiler makes vectors of it.
    uint32_t found = 0;
    for (int64_t i = 0; i < count; i++) {
        const uint32_t bits = to_bits(numbers[i]) & 0x7fffffff;
        found = bits > found ? bits : found;
    }
    return from_bits(found);
}

// To the nearest whole number, halves to the even one, for numbers below 2^22: behind 1.5 * 2^23 no bits are left for a
// fraction. Unlike `rintf` a compiler makes vectors of it.
static float nearest(float number) { return (number + 12582912.0f) - 12582912.0f; }

static float within(float number, float least, float most) { return number < least ? least : number > most ? most : number; }

int64_t matrix_bytes(int32_t format, int64_t out, int64_t in) {
    if (format < FLOAT32 || format > INT4 || (format >= INT8 && in % GROUP != 0)) return 0;
    const int64_t panels = in_steps(out, PANEL);
    return panels * (panel_bytes(format, in) + (format == INT8 ? PANEL * 4 : 0));
}

// The scale and the 32 numbers plus 8 that stand for these, with the least sum of squared errors among some scales. The
// first takes the largest number to -8, as in GGUF's Q4_0: what was of that type is kept as it is.
static uint16_t round_group(const float* numbers, uint8_t* rounded) {
    const float size = largest_magnitude(numbers, GROUP);
    float extreme = -size, best = INFINITY;
    for (int i = 0; i < GROUP; i++) extreme = numbers[i] == size ? size : extreme;
    uint16_t chosen = 0;
    memset(rounded, 8, GROUP);
    const float candidates[] = {-8.0f, -9.0f, -8.75f, -8.5f, -8.25f, -7.75f, -7.5f, -7.25f, -7.0f};
    for (const float steps : candidates) {
        const uint16_t half = float_to_half(extreme / steps);
        const float scale = half_to_float(half);
        if (scale == 0 || isinf(scale) || best == 0) break;
        const float inverse = 1.0f / scale;
        float errors[8] = {}, tried[GROUP];  // several sums, of which a compiler makes a vector
        for (int i = 0; i < GROUP; i++) tried[i] = nearest(within(numbers[i] * inverse, -8.0f, 7.0f));
        for (int i = 0; i < GROUP; i++) errors[i % 8] += (numbers[i] - scale * tried[i]) * (numbers[i] - scale * tried[i]);
        float error = 0;
        for (int i = 0; i < 8; i++) error += errors[i];
        if (!(error < best)) continue;
        best = error;
        chosen = half;
        for (int i = 0; i < GROUP; i++) rounded[i] = (uint8_t)(tried[i] + 8.0f);
    }
    return chosen;
}

// The numbers of a row from column `first` on, at most 32 of them, to their places in a panel.
static void pack_numbers(const Matrix* matrix, int64_t first, int64_t count, const float* numbers, char* panel,
                         int64_t lane, float scale) {
    switch (matrix->format) {
        case FLOAT32:
            for (int64_t k = 0; k < count; k++) ((float*)panel)[(first + k) * PANEL + lane] = numbers[k];
            return;
        case BFLOAT16:
            for (int64_t k = 0; k < count; k++)
                ((uint16_t*)panel)[((first + k) / 2 * PANEL + lane) * 2 + k % 2] = float_to_bfloat16(numbers[k]);
            return;
        case INT8: {
            int8_t rounded[GROUP];
            const float inverse = scale == 0 ? 0 : 1.0f / scale;
            for (int k = 0; k < GROUP; k++) rounded[k] = (int8_t)nearest(within(numbers[k] * inverse, -127.0f, 127.0f));
            for (int k = 0; k < GROUP; k += 4) memcpy(panel + ((first + k) / 4 * PANEL + lane) * 4, rounded + k, 4);
            return;
        }
        default: {
            uint8_t rounded[GROUP];
            ((uint16_t*)group_scales_at(panel, matrix->in))[first / GROUP * PANEL + lane] = round_group(numbers, rounded);
            for (int k = 0; k < GROUP; k += 8)
                for (int i = 0; i < 4; i++)
                    panel[((first + k) / 8 * PANEL + lane) * 4 + i] = (char)(rounded[k + i] | rounded[k + 4 + i] << 4);
        }
    }
}

// The scale of an INT8 row. 0 where its inverse would be no number: the row is as good as zeros.
static float scale_of(const float* numbers, int64_t count) {
    const float scale = largest_magnitude(numbers, count) / 127.0f;
    return isinf(1.0f / scale) ? 0 : scale;
}

void matrix_pack(int32_t format, int64_t out, int64_t in, const float* weights, void* packed) {
    memset(packed, 0, (size_t)matrix_bytes(format, out, in));
    const Matrix matrix = {format, out, in, packed};
    for (int64_t row = 0; row < out; row += PANEL) {
        const int64_t rows = out - row < PANEL ? out - row : PANEL;
        char* const panel = (char*)panel_at(&matrix, row / PANEL);
        float scales[PANEL] = {};
        if (format == INT8) {
            for (int64_t lane = 0; lane < rows; lane++) scales[lane] = scale_of(weights + (row + lane) * in, in);
            memcpy((void*)scales_at(&matrix, row / PANEL), scales, sizeof scales);
        }
        for (int64_t first = 0; first < in; first += GROUP)
            for (int64_t lane = 0; lane < rows; lane++)
                pack_numbers(&matrix, first, in - first < GROUP ? in - first : GROUP, weights + (row + lane) * in + first,
                             panel, lane, scales[lane]);
    }
}

void matrix_row(const Matrix* matrix, int64_t row, float* numbers) {
    const int64_t in = matrix->in, lane = row % PANEL;
    const char* panel = panel_at(matrix, row / PANEL);
    switch (matrix->format) {
        case FLOAT32:
            for (int64_t k = 0; k < in; k++) numbers[k] = ((const float*)panel)[k * PANEL + lane];
            return;
        case BFLOAT16:
            for (int64_t k = 0; k < in; k++) {
                const uint16_t half = ((const uint16_t*)panel)[(k / 2 * PANEL + lane) * 2 + k % 2];
                numbers[k] = from_bits((uint32_t)half << 16);
            }
            return;
        case INT8: {
            const float scale = scales_at(matrix, 0)[row];
            for (int64_t k = 0; k < in; k++) {
                numbers[k] = scale * (float)((const int8_t*)panel)[(k / 4 * PANEL + lane) * 4 + k % 4];
            }
            return;
        }
        default:
            for (int64_t k = 0; k < in; k++) {
                const float scale = half_to_float(group_scales_at(panel, in)[k / GROUP * PANEL + lane]);
                const int byte = ((const uint8_t*)panel)[(k / 8 * PANEL + lane) * 4 + k % 4];
                numbers[k] = scale * (float)((k / 4 % 2 == 0 ? byte & 15 : byte >> 4) - 8);
            }
    }
}

void matrix_unpack(const Matrix* matrix, float* weights) {
    for (int64_t row = 0; row < matrix->out; row++) matrix_row(matrix, row, weights + row * matrix->in);
}
