// How matrices lie in memory: the same on every processor, so that a file of them can be read anywhere.
//
// A panel is 16 rows of a matrix [out, in], which are 16 columns of its product: a vector of them is read at once, and
// multiplied by one number of the input. Rows that do not fill the last panel are zeros.
//
//   FLOAT32   [out / 16][in][16]
//   BFLOAT16  [out / 16][in / 2][16][2]; an odd last column is followed by zeros
//   INT8      [out / 16][in / 4][16][4], then the scales [out / 16][16] float32
//   INT4      [out / 16] panels of [in / 8][16][4] bytes, each with two numbers from 0 to 15: the low half is of columns
//             8 i to 8 i + 3, the high one of the next four. Then the panel's scales and minimums [in / 32][2][16] float16
//   Q8_0      panels of [in / 4][16][4], then scales [in / 32][16] float16
//   Q4_K      as INT4, scales and minimums float32
//   Q6_K      panels of [in / 4][16][4], then scales and minimums [in / 16][2][16] float32
#pragma once
#include "engine.h"

constexpr int64_t PANEL = 16;
constexpr int64_t GROUP = 32;  // numbers that have a scale together in what whole numbers are multiplied by

// A format of whole numbers: the bits of one; how many columns of a row have a scale together, 0 for all; whether they
// have a minimum, which is added to the scaled number; bytes of each.
struct Whole {
    int bits;
    int64_t group;
    bool minimum;
    int64_t scale_bytes;
};

constexpr Whole whole(int32_t format) {
    switch (format) {
        case INT8: return {8, 0, false, 4};
        case INT4: return {4, 32, true, 2};
        case Q8_0: return {8, 32, false, 2};
        case Q4_K: return {4, 32, true, 4};
        default: return {8, 16, true, 4};
    }
}

inline int64_t in_steps(int64_t count, int64_t step) { return (count + step - 1) / step; }
inline int64_t round_up(int64_t count, int64_t step) { return in_steps(count, step) * step; }

inline int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }
inline int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }

inline int64_t panels_of(const Matrix* matrix) { return in_steps(matrix->out, PANEL); }

// Bytes of the numbers of a panel; from one scale of a row to that of its next group; from one panel to the next.
inline int64_t numbers_bytes(const Whole& kind, int64_t in) { return in * kind.bits / 8 * PANEL; }
constexpr int64_t scales_step(const Whole& kind) { return (kind.minimum ? 2 : 1) * PANEL * kind.scale_bytes; }
inline int64_t panel_bytes(int32_t format, int64_t in) {
    if (format == FLOAT32) return 4 * in * PANEL;
    if (format == BFLOAT16) return 2 * round_up(in, 2) * PANEL;
    const Whole kind = whole(format);
    return round_up(numbers_bytes(kind, in) + (kind.group ? in / kind.group * scales_step(kind) : 0), 64);
}

inline const char* panel_at(const Matrix* matrix, int64_t panel) {
    return (const char*)matrix->data + panel * panel_bytes(matrix->format, matrix->in);
}

// INT8: the scales of a panel's rows.
inline const float* scales_at(const Matrix* matrix, int64_t panel) {
    return (const float*)panel_at(matrix, panels_of(matrix)) + panel * PANEL;
}

// The numbers of one row, [in].
void matrix_row(const Matrix* matrix, int64_t row, float* numbers);

float half_to_float(uint16_t half);
