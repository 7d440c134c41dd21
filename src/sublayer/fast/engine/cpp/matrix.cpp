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
    float found = 0;
    for (int64_t i = 0; i < count; i++) {
        const float size = fabsf(numbers[i]);
        found = size > found ? size : found;
    }
    return found;
}

int64_t matrix_bytes(int32_t format, int64_t out, int64_t in) {
    if (format < FLOAT32 || format > INT4 || (format >= INT8 && in % GROUP != 0)) return 0;
    const int64_t panels = in_steps(out, PANEL);
    return panels * (panel_bytes(format, in) + (format == INT8 ? PANEL * 4 : 0));
}

// The scale and the 32 numbers plus 8 that stand for these, with the least sum of squared errors among some scales. The
// first takes the largest number to -8, as in GGUF's Q4_0: what was of that type is kept as it is.
static uint16_t round_group(const float* numbers, uint8_t* rounded) {
    float extreme = 0;
    for (int i = 0; i < GROUP; i++) extreme = fabsf(numbers[i]) > fabsf(extreme) ? numbers[i] : extreme;
    float best = INFINITY;
    uint16_t chosen = 0;
    memset(rounded, 8, GROUP);
    // -8 to -6.75, and the same with the other sign: 7 is the largest on that side.
    for (int candidate = 0; candidate < 10 && best > 0; candidate++) {
        const float steps = candidate < 6 ? -8.0f + 0.25f * (float)candidate : 7.5f - 0.25f * (float)(candidate - 6);
        const uint16_t half = float_to_half(extreme / steps);
        const float scale = half_to_float(half);
        if (scale == 0 || isinf(scale)) break;
        const float inverse = 1.0f / scale;
        float error = 0;
        uint8_t tried[GROUP];
        for (int i = 0; i < GROUP; i++) {
            float nearest = rintf(numbers[i] * inverse);
            nearest = nearest < -8.0f ? -8.0f : nearest > 7.0f ? 7.0f : nearest;
            const float missing = numbers[i] - scale * nearest;
            error += missing * missing;
            tried[i] = (uint8_t)(nearest + 8.0f);
        }
        if (error < best) {
            best = error;
            chosen = half;
            memcpy(rounded, tried, GROUP);
        }
    }
    return chosen;
}

static void pack_row(int32_t format, int64_t in, const float* numbers, char* panel, int64_t lane, float* scale) {
    switch (format) {
        case FLOAT32:
            for (int64_t k = 0; k < in; k++) ((float*)panel)[k * PANEL + lane] = numbers[k];
            return;
        case BFLOAT16:
            for (int64_t k = 0; k < in; k++)
                ((uint16_t*)panel)[(k / 2 * PANEL + lane) * 2 + k % 2] = float_to_bfloat16(numbers[k]);
            return;
        case INT8: {
            *scale = largest_magnitude(numbers, in) / 127.0f;
            // Where the inverse of the scale is no number, all of them are as good as zero.
            const float inverse = 1.0f / *scale;
            if (isinf(inverse)) *scale = 0;
            for (int64_t k = 0; k < in; k++) {
                float nearest = *scale == 0 ? 0 : rintf(numbers[k] * inverse);
                nearest = nearest < -127.0f ? -127.0f : nearest > 127.0f ? 127.0f : nearest;
                ((int8_t*)panel)[(k / 4 * PANEL + lane) * 4 + k % 4] = (int8_t)nearest;
            }
            return;
        }
        default:
            for (int64_t group = 0; group < in / GROUP; group++) {
                uint8_t rounded[GROUP];
                const uint16_t half = round_group(numbers + group * GROUP, rounded);
                ((uint16_t*)(panel + in / 2 * PANEL))[group * PANEL + lane] = half;
                for (int k = 0; k < GROUP; k++) {
                    uint8_t* byte = (uint8_t*)panel + group * GROUP / 2 * PANEL + (k / 8 * PANEL + lane) * 4 + k % 4;
                    *byte = (uint8_t)(k / 4 % 2 == 0 ? rounded[k] : *byte | rounded[k] << 4);
                }
            }
    }
}

void matrix_pack(int32_t format, int64_t out, int64_t in, const float* weights, void* packed) {
    memset(packed, 0, (size_t)matrix_bytes(format, out, in));
    char* const scales = (char*)packed + in_steps(out, PANEL) * panel_bytes(format, in);
    for (int64_t row = 0; row < out; row++)
        pack_row(format, in, weights + row * in, (char*)packed + row / PANEL * panel_bytes(format, in), row % PANEL,
                 (float*)scales + row);
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
