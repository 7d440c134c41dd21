// What computes: the same functions for each instruction set. They know nothing of programs and threads.
#pragma once
#include "engine.h"

// What 32 rounded numbers of each of four rows have in common.
struct RoundedGroup {
    float scale[4];
    float total[4];      // the sum of what the numbers stand for: what a minimum is multiplied by
    float total_16[4];   // and that of the first 16
    int32_t surplus[4];  // what `Int8Sums` (dots.h) begins with
    int32_t surplus_16[4];
};

// Rows of an input rounded to int8, a scale for each 32 numbers. Four rows lie side by side, so that a tile of rows reads
// from few places: numbers [rows / 4][in / 32][4][32], where some instruction sets have their magnitudes and their signs
// behind each 32 of them; groups [rows / 4][in / 32].
struct Rounded {
    int64_t in;  // numbers of a row, a multiple of 32
    int8_t* numbers;
    RoundedGroup* groups;
};

// Bytes for so many rows, whatever the instruction set.
inline int64_t rounded_bytes(int64_t rows, int64_t in) {
    return (rows + 3) / 4 * (12 * in + in / 32 * (int64_t)sizeof(RoundedGroup));
}

// How such a block of memory is divided.
inline Rounded rounded_in(void* memory, int64_t rows, int64_t in) {
    RoundedGroup* const groups = (RoundedGroup*)memory;
    return Rounded{in, (int8_t*)(groups + (rows + 3) / 4 * (in / 32)), groups};
}

// out = activation(x matrix^T + bias), out or out += of it; of the rounded rows where the matrix is of whole numbers.
struct Product {
    const Matrix* matrix;
    const float* x;
    int64_t x_step;  // from one row to the next
    Rounded rounded;
    const float* bias;
    int32_t activation, flags;
    float* out;
    int64_t out_step;
    bool far;  // whether the weights of a step are too many for a cache, and come from memory
};

// Queries that see some of the same keys. A query that sees none gets zeros.
constexpr int64_t MOST_QUERIES = 48;

struct Queries {
    int64_t head, keys;  // width of a head; keys that any of them sees
    const float *key, *value;
    int64_t step;  // from one key or value to the next
    const int32_t* rows;  // [keys]: each key and value stands so many times `row_step` further; or none
    int64_t row_step;
    bool many;     // whether to prepare the keys for many queries. Sums then run in another order
    float scale, cap;
    int64_t count;
    const float* query[MOST_QUERIES];
    float* out[MOST_QUERIES];
    int64_t first[MOST_QUERIES], last[MOST_QUERIES];  // each sees the keys from first up to and without last
    const float* bias[MOST_QUERIES];                  // added to the scores of each key, or none
};

// The largest numbers of a row that is looked through some columns at a time.
struct Ranking {
    int64_t wanted, found;
    int64_t* columns;  // [wanted]: where they stand, the largest first, of equal ones the first
    float* numbers;    // [wanted]
    float largest, total;  // of all numbers so far; and the sum of e^(x - largest) of all
};

constexpr int64_t RANKED = 512;  // columns at a time, so that sums have one order

struct Kernels {
    const char* name;
    // A row of x to row `row` of the rounded.
    void (*round)(const float* x, int64_t row, const Rounded* to);
    // Some rows and some panels (matrix.h) of a product; the first row is a multiple of 4.
    void (*product)(const Product* product, int64_t row, int64_t end, int64_t panel, int64_t panel_end);
    // Of one row. `op` has the settings.
    void (*norm)(const Op* op, const float* in, float* out);
    void (*rotate)(const Op* op, float* x, int64_t position);
    void (*gate)(int32_t activation, int64_t width, const float* in, float* out);
    void (*add)(float factor, int64_t width, const float* in, float* out);  // out += factor * in
    void (*scale)(float factor, int64_t width, const float* in, float* out);
    void (*cap)(float cap, int64_t width, const float* in, float* out);
    void (*attend)(const Queries* queries, float* scratch);
    // `width` numbers, of which the first stands in column `first`.
    void (*rank)(int64_t first, int64_t width, const float* x, Ranking* ranking);
};

// Floats that `attend` wants as scratch.
int64_t attend_scratch(int64_t queries, int64_t keys, int64_t head);

// Those that were compiled; which of them the processor has is for `isa.cpp` to say.
extern const Kernels kernels_plain;
#if defined(__x86_64__)
extern const Kernels kernels_avx2, kernels_avxvnni, kernels_avx512, kernels_avx512vnni;
#elif defined(__aarch64__)
extern const Kernels kernels_neon;
#endif

// NULL where this processor, or this library, has none of that name.
const Kernels* kernels_named(const char* name);
