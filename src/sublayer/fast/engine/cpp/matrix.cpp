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

// The least for NaN.
static float within(float number, float least, float most) { return !(number > least) ? least : number > most ? most : number; }

int64_t matrix_bytes(int32_t format, int64_t out, int64_t in) {
    if (format < FLOAT32 || format > Q6_K || (format >= INT8 && in % GROUP != 0)) return 0;
    const int64_t panels = in_steps(out, PANEL);
    return panels * (panel_bytes(format, in) + (format == INT8 ? PANEL * 4 : 0));
}

// Numbers of a group as whole ones: each is scale * step + minimum.
struct Steps {
    float scale, minimum;
    int8_t steps[GROUP];
};

// As a scale or minimum is kept.
static float kept(const Whole& kind, float number) {
    return kind.scale_bytes == 2 ? half_to_float(float_to_half(number)) : number;
}

// Whether the numbers are `base` and whole multiples of one scale, of which the largest is at most `most`.
static bool multiples(const Whole& kind, const float* numbers, int64_t count, float base, int most, bool negative,
                      Steps* found) {
    if (kept(kind, base) != base) return false;
    float farthest = 0;
    for (int64_t i = 0; i < count; i++) farthest = fmaxf(farthest, fabsf(numbers[i] - base));
    // Numbers that were sums have been rounded, and so has a scale that is found of them.
    const float tolerance = kind.scale_bytes == 4 && base != 0 ? largest_magnitude(numbers, count) * 0x1p-22f : 0;
    *found = Steps{0, base, {}};
    if (farthest == 0) return true;
    for (int parts = 1; parts <= most; parts++) {
        const float scale = kept(kind, farthest / (float)parts) * (negative ? -1.0f : 1.0f), inverse = 1.0f / scale;
        int64_t i = 0;
        for (; i < count; i++) {
            const float step = nearest(within((numbers[i] - base) * inverse, -127.0f, 127.0f));
            if (!(fabsf(scale * step + base - numbers[i]) <= tolerance)) break;
            found->steps[i] = (int8_t)step;
        }
        found->scale = scale;
        if (i == count) return true;
    }
    return false;
}

static bool exact_steps(const Whole& kind, const float* numbers, int64_t count, Steps* found) {
    if (kind.bits == 8 && multiples(kind, numbers, count, 0, 127, false, found)) return true;
    if (!kind.minimum) return false;
    float least = numbers[0], most = numbers[0];
    for (int64_t i = 1; i < count; i++) least = fminf(least, numbers[i]), most = fmaxf(most, numbers[i]);
    const int steps = kind.bits == 4 ? 15 : 127;
    // Of Q4_0 the number farthest from 0, above or below it, is what float16 holds.
    return multiples(kind, numbers, count, least, steps, false, found) ||
           multiples(kind, numbers, count, most, steps, true, found);
}

// Takes the steps nearest to the numbers where their sum of squared errors is less than `least_error`.
static void take_if_nearer(const Whole& kind, const float* numbers, float scale, float minimum, float* least_error,
                           Steps* found) {
    scale = kept(kind, scale), minimum = kept(kind, minimum);
    const float inverse = 1.0f / scale;
    float tried[GROUP], errors[8] = {}, error = 0;  // several sums, of which a compiler makes a vector
    for (int i = 0; i < GROUP; i++) tried[i] = nearest(within((numbers[i] - minimum) * inverse, 0.0f, 15.0f));
    for (int i = 0; i < GROUP; i++) {
        const float off = scale * tried[i] + minimum - numbers[i];
        errors[i % 8] += off * off;
    }
    for (int i = 0; i < 8; i++) error += errors[i];
    if (!(error < *least_error)) return;
    *least_error = error;
    found->scale = scale, found->minimum = minimum;
    for (int i = 0; i < GROUP; i++) found->steps[i] = (int8_t)tried[i];
}

// Four bits, from the least number to the largest, or what is nearer: some scales say which steps are meant, and the best
// line through these which scale and minimum.
static void search_steps(const Whole& kind, const float* numbers, Steps* found) {
    float least = numbers[0], most = numbers[0], sum = 0, error = INFINITY;
    for (int i = 0; i < GROUP; i++) least = fminf(least, numbers[i]), most = fmaxf(most, numbers[i]), sum += numbers[i];
    // What is no number stays none.
    *found = Steps{0, sum - sum == 0 ? kept(kind, least) : NAN, {}};
    take_if_nearer(kind, numbers, (most - least) / 15.0f, least, &error, found);
    for (float parts = 13.5f; parts <= 17.0f; parts += 0.5f) {
        const float guess = parts / (most - least);
        float tried[GROUP], totals[3][8] = {}, total[3] = {};
        for (int i = 0; i < GROUP; i++) tried[i] = nearest(within((numbers[i] - least) * guess, 0.0f, 15.0f));
        for (int i = 0; i < GROUP; i++) totals[0][i % 8] += tried[i];
        for (int i = 0; i < GROUP; i++) totals[1][i % 8] += tried[i] * tried[i];
        for (int i = 0; i < GROUP; i++) totals[2][i % 8] += tried[i] * numbers[i];
        for (int i = 0; i < 24; i++) total[i / 8] += totals[i / 8][i % 8];
        const float scale = (GROUP * total[2] - total[0] * sum) / (GROUP * total[1] - total[0] * total[0]);
        take_if_nearer(kind, numbers, scale, (sum - scale * total[0]) / GROUP, &error, found);
    }
}

// Eight bits: the number of the largest magnitude becomes 127.
static void round_to(float scale, const float* numbers, int64_t count, int8_t* steps) {
    // 0 where the inverse would be no number: the numbers are as good as zeros.
    const float inverse = scale == 0 ? 0 : 1.0f / scale;
    for (int64_t i = 0; i < count; i++) steps[i] = (int8_t)nearest(within(numbers[i] * inverse, -127.0f, 127.0f));
}

static float scale_of(const float* numbers, int64_t count) {
    const float scale = largest_magnitude(numbers, count) / 127.0f;
    return isinf(1.0f / scale) ? 0 : scale;
}

static void find_steps(const Whole& kind, const float* numbers, int64_t count, Steps* found) {
    if (exact_steps(kind, numbers, count, found)) return;
    if (kind.bits == 4) return search_steps(kind, numbers, found);
    *found = Steps{kept(kind, scale_of(numbers, count)), 0, {}};
    round_to(found->scale, numbers, count, found->steps);
}

// Where scales and minimums stand: `which` is 0 or 1.
static int64_t scale_place(const Matrix* matrix, int64_t group, int64_t lane, int which) {
    const Whole kind = whole(matrix->format);
    return numbers_bytes(kind, matrix->in) + group * scales_step(kind) + (which * PANEL + lane) * kind.scale_bytes;
}

static float read_scale(const Matrix* matrix, const char* panel, int64_t group, int64_t lane, int which) {
    const char* const at = panel + scale_place(matrix, group, lane, which);
    return whole(matrix->format).scale_bytes == 2 ? half_to_float(*(const uint16_t*)at) : *(const float*)at;
}

static void write_scale(const Matrix* matrix, char* panel, int64_t group, int64_t lane, int which, float number) {
    char* const at = panel + scale_place(matrix, group, lane, which);
    if (whole(matrix->format).scale_bytes == 2)
        *(uint16_t*)at = float_to_half(number);
    else
        *(float*)at = number;
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
        default: {
            const Whole kind = whole(matrix->format);
            Steps found;
            int8_t steps[GROUP];
            if (kind.group == 0) round_to(scale, numbers, GROUP, steps);
            for (int64_t k = 0; kind.group && k < GROUP; k += kind.group) {
                const int64_t group = (first + k) / kind.group;
                find_steps(kind, numbers + k, kind.group, &found);
                memcpy(steps + k, found.steps, (size_t)kind.group);
                write_scale(matrix, panel, group, lane, 0, found.scale);
                if (kind.minimum) write_scale(matrix, panel, group, lane, 1, found.minimum);
            }
            for (int k = 0; k < GROUP && kind.bits == 8; k += 4)
                memcpy(panel + ((first + k) / 4 * PANEL + lane) * 4, steps + k, 4);
            for (int k = 0; k < GROUP && kind.bits == 4; k += 8)
                for (int i = 0; i < 4; i++)
                    panel[((first + k) / 8 * PANEL + lane) * 4 + i] = (char)(steps[k + i] | steps[k + 4 + i] << 4);
        }
    }
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

// A lane of a part of a panel, of which each step has `bytes` for each of 16 lanes.
static void take_lane(const char* from, int64_t lane, int64_t steps, int64_t bytes, char* to, int64_t to_lane) {
    for (int64_t i = 0; i < steps; i++)
        memcpy(to + (i * PANEL + to_lane) * bytes, from + (i * PANEL + lane) * bytes, (size_t)bytes);
}

void matrix_take(const Matrix* matrix, int64_t count, const int64_t* rows, void* packed) {
    const int32_t format = matrix->format;
    memset(packed, 0, (size_t)matrix_bytes(format, count, matrix->in));
    const Matrix taken = {format, count, matrix->in, packed};
    const Whole kind = whole(format);
    const int64_t size = panel_bytes(format, matrix->in);
    const int64_t numbers = format >= INT8 ? numbers_bytes(kind, matrix->in) : size;
    for (int64_t row = 0; row < count; row++) {
        const int64_t lane = rows[row] % PANEL, to_lane = row % PANEL;
        const char* const from = panel_at(matrix, rows[row] / PANEL);
        char* const to = (char*)panel_at(&taken, row / PANEL);
        take_lane(from, lane, numbers / (4 * PANEL), 4, to, to_lane);
        const int64_t scales = (size - numbers) / (kind.scale_bytes * PANEL);
        take_lane(from + numbers, lane, scales, kind.scale_bytes, to + numbers, to_lane);
        if (format == INT8) ((float*)scales_at(&taken, 0))[row] = scales_at(matrix, 0)[rows[row]];
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
        default:
            const Whole kind = whole(matrix->format);
            float scale = kind.group ? 0 : scales_at(matrix, 0)[row], minimum = 0;
            for (int64_t k = 0; k < in; k++) {
                if (kind.group && k % kind.group == 0) {
                    scale = read_scale(matrix, panel, k / kind.group, lane, 0);
                    minimum = kind.minimum ? read_scale(matrix, panel, k / kind.group, lane, 1) : 0;
                }
                const char* const at = panel + (k * kind.bits / 32 * PANEL + lane) * 4 + k % 4;
                const int step = kind.bits == 8 ? *(const int8_t*)at : *(const uint8_t*)at >> k / 4 % 2 * 4 & 15;
                numbers[k] = scale * (float)step + minimum;
            }
    }
}

void matrix_unpack(const Matrix* matrix, float* weights) {
    for (int64_t row = 0; row < matrix->out; row++) matrix_row(matrix, row, weights + row * matrix->in);
}

static bool is_exact(int32_t format, int64_t out, int64_t in, const float* weights) {
    if (format >= INT8) {
        const Whole kind = whole(format);
        Steps found;
        for (int64_t i = 0; in % GROUP == 0 && i < out * in; i += kind.group)
            if (!exact_steps(kind, weights + i, kind.group, &found)) return false;
        return in % GROUP == 0;
    }
    for (int64_t i = 0; format == BFLOAT16 && i < out * in; i++)
        if (to_bits(weights[i]) & 0xffff) return false;
    return true;
}

int32_t exact_format(int64_t out, int64_t in, const float* weights) {
    constexpr int32_t narrowest_first[] = {INT4, Q4_K, Q8_0, Q6_K, BFLOAT16};
    for (const int32_t format : narrowest_first)
        if (is_exact(format, out, in, weights)) return format;
    return FLOAT32;
}
