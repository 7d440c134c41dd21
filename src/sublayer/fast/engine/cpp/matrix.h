// How matrices lie in memory: the same on every processor, so that a file of them can be read anywhere.
//
// A panel is 16 rows of a matrix [out, in], which are 16 columns of its product: a vector of them is read at once, and
// multiplied by one number of the input. Rows that do not fill the last panel are zeros.
//
//   FLOAT32   [out / 16][in][16]
//   BFLOAT16  [out / 16][in / 2][16][2]; an odd last column is followed by zeros
//   INT8      [out / 16][in / 4][16][4], then the scales [out / 16][16] float32
//   INT4      [out / 16] panels of [in / 32] groups [4][16][4] bytes, then the scales [in / 32][16] float16 of the panel.
//             Each byte holds two numbers plus 8: the low half is of columns 8 i to 8 i + 3, the high one of the next four
#pragma once
#include "engine.h"

constexpr int64_t PANEL = 16;
constexpr int64_t GROUP = 32;  // numbers that have a scale together: in INT4, and in what INT8 and INT4 are multiplied by

inline int64_t in_steps(int64_t count, int64_t step) { return (count + step - 1) / step; }
inline int64_t round_up(int64_t count, int64_t step) { return in_steps(count, step) * step; }

inline int64_t panels_of(const Matrix* matrix) { return in_steps(matrix->out, PANEL); }

// From one panel to the next.
inline int64_t panel_bytes(int32_t format, int64_t in) {
    switch (format) {
        case FLOAT32: return in * PANEL * 4;
        case BFLOAT16: return round_up(in, 2) * PANEL * 2;
        case INT8: return in * PANEL;
        default: return in / 2 * PANEL + round_up(in / GROUP * PANEL * 2, 64);
    }
}

inline const char* panel_at(const Matrix* matrix, int64_t panel) {
    return (const char*)matrix->data + panel * panel_bytes(matrix->format, matrix->in);
}

// INT8: the scales of a panel's rows.
inline const float* scales_at(const Matrix* matrix, int64_t panel) {
    return (const float*)panel_at(matrix, panels_of(matrix)) + panel * PANEL;
}

// INT4: the scales of a panel's groups.
inline const uint16_t* group_scales_at(const char* panel, int64_t in) { return (const uint16_t*)(panel + in / 2 * PANEL); }

// The numbers of one row, [in].
void matrix_row(const Matrix* matrix, int64_t row, float* numbers);

float half_to_float(uint16_t half);
