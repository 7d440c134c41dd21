// Products with packed matrices (matrix.h), as tiles: some rows of the input times some panels, whose sums stay in registers.
//
// Every output is summed over the columns in one order, whatever the tile, so that a row's numbers do not depend on what
// stands beside it: in float32 and bfloat16 one chain of fused products for each CHUNK of columns, and the chunks' sums in
// their order; in int8 and int4 whole numbers for each 32 columns, which are exact, times their scales in their order.
#pragma once
#include <type_traits>

#include "activations.h"
#include "dots.h"
#include "kernels.h"
#include "matrix.h"
#include "simd.h"

namespace {

constexpr int VECTORS = (int)PANEL / LANES;  // of a panel
constexpr int64_t CHUNK = 256;               // columns: of float32 a panel of them, 16 KiB, stays in the first cache
constexpr int64_t BLOCK = 96;                // rows that go over a panel while it is there, at most

// How many vectors of sums the registers hold beside what is multiplied; how many rows a tile has at most.
#if defined(__AVX512F__)
constexpr int SUMS = 24, INT_SUMS = 8, MOST_ROWS = 12, MOST_PANELS = 8;
#elif defined(__AVX2__)
constexpr int SUMS = 12, INT_SUMS = 8, MOST_ROWS = 6, MOST_PANELS = 4;
#elif defined(__ARM_NEON)
constexpr int SUMS = 24, INT_SUMS = 16, MOST_ROWS = 6, MOST_PANELS = 4;
#else
constexpr int SUMS = 8, INT_SUMS = 4, MOST_ROWS = 2, MOST_PANELS = 2;
#endif

// What the first rows that go over some weights fetch: with few rows, what they themselves would wait for. Weights that
// come from memory (`Product::far`) are fetched farther ahead, into the second cache; of those in a cache wide vectors
// would lose more by the instructions.
constexpr bool FETCHES = LANES <= 8;
constexpr int64_t NEAR = 1024, FAR = 4096;

template <bool IS_FAR>
inline void fetch(const void* at, int64_t ahead) {
    __builtin_prefetch((const char*)at + ahead, 0, IS_FAR ? 2 : 3);
}

// The more rows, the fewer panels at once; with one row, as many as keep the memory busy.
inline int panels_for(int64_t rows, int64_t most_rows, int most_sums) {
    const int64_t tall = rows < most_rows ? rows : most_rows;
    int panels = MOST_PANELS;
    while (panels > 1 && tall * panels * VECTORS > most_sums) panels /= 2;
    return panels;
}

// Tiles of float32, for products and for attention. Where `weights` is packed, `row_step` is 16.
struct FloatTiles {
    static constexpr int MOST = SUMS, ROWS_AT_ONCE = MOST_ROWS;
    static constexpr int fewer(int rows) { return rows > 8 ? 8 : rows > 6 ? 4 : rows - 1; }
    static int panels_at_once(int64_t rows) { return panels_for(rows, ROWS_AT_ONCE, MOST); }
    static constexpr bool ADDS = true;
    static int64_t block(int64_t) { return BLOCK; }
    const float* x;
    int64_t x_step;
    const float* weights;  // 16 columns of the product side by side; a row of them for each column of x
    int64_t panel_step, row_step;
    float* sums;  // that are added to (`ADDS`); a panel's beside that of the panel before it
    int64_t sum_step;
    bool far = false;

    template <int ROWS, int PANELS>
    void tile(int64_t row, int64_t first, int64_t columns) const {
        far && ROWS <= 4 ? add<ROWS, PANELS, ROWS <= 4>(row, first, columns) : add<ROWS, PANELS, false>(row, first, columns);
    }

    template <int ROWS, int PANELS, bool IS_FAR>
    void add(int64_t row, int64_t first, int64_t columns) const {
        Floats found[ROWS][PANELS * VECTORS] = {};
        const float* from = x + row * x_step + first;
        const float* at = weights + first * row_step;
        const int64_t ahead = ROWS > 4 ? 4 * row_step * columns : IS_FAR ? FAR : NEAR;  // many: the next chunk
        for (int64_t k = 0; k < columns; k++, at += row_step) {
            Floats by[PANELS * VECTORS];
            for (int v = 0; v < PANELS * VECTORS; v++) {
                by[v] = load(at + v / VECTORS * panel_step + v % VECTORS * LANES);
                if (ROWS > 1 && ROWS <= 4) in_register(by[v]);
            }
            if ((FETCHES || IS_FAR) && row == 0)
                for (int panel = 0; panel < PANELS; panel++) fetch<IS_FAR>(at + panel * panel_step, ahead);
            for (int r = 0; r < ROWS; r++) {
                const Floats number = all(from[r * x_step + k]);
                for (int v = 0; v < PANELS * VECTORS; v++) found[r][v] = fma(number, by[v], found[r][v]);
            }
        }
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < PANELS * VECTORS; v++) {
                float* const to = sums + (row + r) * sum_step + v * LANES;
                store(to, load(to) + found[r][v]);
            }
    }
};

// The same of bfloat16, for few rows.
struct Bfloat16Tiles {
    static constexpr int MOST = SUMS < 16 ? SUMS : 16, ROWS_AT_ONCE = MOST_ROWS < 4 ? MOST_ROWS : 4;
    static constexpr int64_t MANY = 12;  // from so many rows on, a chunk is made float32 first
    static constexpr int fewer(int rows) { return rows / 2; }
    static int panels_at_once(int64_t rows) {
        return rows < MANY ? panels_for(rows, ROWS_AT_ONCE, MOST) : FloatTiles::panels_at_once(rows);
    }
    static constexpr bool ADDS = true;
    static int64_t block(int64_t) { return BLOCK; }
    const float* x;
    int64_t x_step;
    const uint16_t* weights;
    int64_t panel_step;
    float* sums;
    int64_t sum_step;

    static Floats even(Ints pairs) { return (Floats)(pairs << 16); }
    static Floats odd(Ints pairs) { return (Floats)(pairs & all((int32_t)0xffff0000)); }

    Ints pairs(int64_t column, int vector) const {
        Ints found;
        memcpy(&found, weights + vector / VECTORS * panel_step + column * PANEL + vector % VECTORS * LANES * 2, sizeof found);
        return found;
    }

    template <int ROWS, int PANELS>
    void tile(int64_t row, int64_t first, int64_t columns) const {
        constexpr int WIDTH = PANELS * VECTORS;
        Floats found[ROWS][WIDTH] = {};
        const float* from = x + row * x_step + first;
        for (int64_t k = 0; k + 2 <= columns; k += 2)
            for (int v = 0; v < WIDTH; v++) {
                const Ints both = pairs(first + k, v);
                for (int r = 0; r < ROWS; r++) {
                    found[r][v] = fma(all(from[r * x_step + k]), even(both), found[r][v]);
                    found[r][v] = fma(all(from[r * x_step + k + 1]), odd(both), found[r][v]);
                }
            }
        if (columns % 2)
            for (int v = 0; v < WIDTH; v++)
                for (int r = 0; r < ROWS; r++)
                    found[r][v] = fma(all(from[r * x_step + columns - 1]), even(pairs(first + columns - 1, v)), found[r][v]);
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < WIDTH; v++) {
                float* const to = sums + (row + r) * sum_step + v * LANES;
                store(to, load(to) + found[r][v]);
            }
    }
};

inline Floats halves_at(const uint16_t* from) {
#if defined(__AVX512F__)
    return (Floats)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)from));
#elif defined(__AVX2__)
    return (Floats)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)from));
#elif defined(__ARM_NEON)
    return (Floats)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from)));
#else
    return Floats{half_to_float(from[0]), half_to_float(from[1]), half_to_float(from[2]), half_to_float(from[3])};
#endif
}

// What the tiles of a format of whole numbers do with its bytes (matrix.h).
template <int FORMAT>
struct Weights : std::conditional_t<whole(FORMAT).bits == 8, Int8Sums<whole(FORMAT).group != 16>, Int4Sums> {
    static constexpr Whole KIND = whole(FORMAT);
    static constexpr int64_t COLUMNS = KIND.group == 16 ? 16 : GROUP, BYTES = COLUMNS * KIND.bits / 8 * PANEL;
    // Whether tiles of four rows are faster than those of two.
    static constexpr bool TALL = KIND.bits == 4 || INPUT_BYTES == GROUP || LANES > 8;

    // Eight columns are multiplied at once: of four bits those of some bytes; of eight, four columns and those that stand
    // half a group farther on, which is what `round_row` reckons with.
    static constexpr int64_t APART = KIND.bits == 8 ? COLUMNS / 8 : 1;  // in fours

    static void eight_columns(const char* at, Bytes* by) {
        const Bytes loaded = bytes_at(at);
        if constexpr (KIND.bits == 8) {
            by[0] = Weights::prepared(loaded);
            by[1] = Weights::prepared(bytes_at(at + APART * 4 * PANEL));
        } else {
            by[0] = low_halves(loaded);
            by[1] = high_halves(loaded);
        }
    }

    // Scales or minimums. INT8's scale of a whole row is left to `finish`.
    static Floats scales(const char* at, int64_t lane) {
        if constexpr (KIND.group == 0) return all(1.0f);
        if constexpr (KIND.scale_bytes == 2) return halves_at((const uint16_t*)at + lane);
        return load((const float*)at + lane);
    }
};

// Tiles of whole numbers.
template <class Weights>
struct IntTiles {
    static constexpr int MOST = Weights::TALL ? INT_SUMS : INT_SUMS / 2;
    static constexpr int ROWS_AT_ONCE = MOST_ROWS < 4 ? MOST_ROWS : !Weights::TALL ? 2 : 4;
    static constexpr int fewer(int rows) { return rows / 2; }
    static int panels_at_once(int64_t rows) { return panels_for(rows, ROWS_AT_ONCE, MOST); }
    static constexpr bool ADDS = false;  // the first columns overwrite
    // As many as the first cache holds beside a panel, where each number of an input takes three bytes.
    static int64_t block(int64_t columns) {
        const int64_t fit = 16384 / (columns * INPUT_BYTES / GROUP) / 4 * 4;
        return INPUT_BYTES == GROUP ? BLOCK : larger_of(4, smaller_of(BLOCK, fit));
    }
    Rounded x;
    const char* weights;
    int64_t panel_step;
    float* sums;
    int64_t sum_step;
    bool far;

    // Of a row, the sum over the columns of a weight's group: over all, over the first 16, or over what is then left.
    template <class Number>
    static Number part_of(const Number* all_32, const Number* first_16, int64_t row, bool second) {
        if (Weights::COLUMNS == GROUP) return all_32[row];
        return second ? all_32[row] - first_16[row] : first_16[row];
    }

    // The rows are in one four.
    template <int ROWS, int PANELS>
    void tile(int64_t row, int64_t first, int64_t columns) const {
        far && ROWS <= 2 ? add<ROWS, PANELS, ROWS <= 2>(row, first, columns) : add<ROWS, PANELS, false>(row, first, columns);
    }

    template <int ROWS, int PANELS, bool IS_FAR>
    void add(int64_t row, int64_t first, int64_t columns) const {
        constexpr int WIDTH = PANELS * VECTORS;
        constexpr int64_t COLUMNS = Weights::COLUMNS, BYTES = Weights::BYTES, SCALES = scales_step(Weights::KIND);
        const int64_t place = row / 4 * (x.in / GROUP) + first / GROUP;  // of the four rows, and of the first group
        const RoundedGroup* input = x.groups + place;
        const int8_t* numbers = x.numbers + (place * 4 + row % 4) * INPUT_BYTES;
        const char* at = weights + first / COLUMNS * BYTES;
        const char* scales = weights + numbers_bytes(Weights::KIND, x.in) + first / COLUMNS * SCALES;
        const char* const end = weights + panel_step;
        Floats found[ROWS][WIDTH];
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < WIDTH; v++) found[r][v] = first ? load(sums + (row + r) * sum_step + v * LANES) : Floats{};
        for (int64_t column = first; column < first + columns; column += COLUMNS, scales += SCALES) {
            const bool second = COLUMNS < GROUP && column % GROUP;  // of two parts that the input's group has
            // What is fetched behind the end of these panels stands behind the last of them.
            const int64_t ahead = !IS_FAR ? NEAR : FAR + (at + BYTES + FAR > end ? (PANELS - 1) * panel_step : 0);
            typename Weights::Sums exact[ROWS][WIDTH];
            for (int r = 0; r < ROWS; r++) {
                const int32_t surplus = part_of(input->surplus, input->surplus_16, row % 4 + r, second);
                for (int v = 0; v < WIDTH; v++) exact[r][v] = Weights::start(surplus);
            }
#pragma GCC unroll 4
            for (int eight = 0; eight < COLUMNS / 8; eight++) {
                const char* const here = at + eight * 4 * PANEL;
                const int64_t column_of = column % GROUP + eight * (Weights::APART == 1 ? 8 : 4);
                Bytes by[WIDTH][2];
                if ((FETCHES || IS_FAR) && ROWS <= 2 && row == 0)
                    for (int panel = 0; panel < PANELS; panel++)
                        for (int line = 0; line < BYTES * 8 / COLUMNS; line += 64)
                            fetch<IS_FAR>(at + panel * panel_step + eight * BYTES * 8 / COLUMNS + line, ahead);
                for (int v = 0; v < WIDTH; v++)
                    Weights::eight_columns(here + v / VECTORS * panel_step + v % VECTORS * LANES * 4, by[v]);
                for (int r = 0; r < ROWS; r++) {
                    const int8_t* const from = numbers + r * INPUT_BYTES + column_of;
                    const Input four(from), other(from + Weights::APART * 4);
                    for (int v = 0; v < WIDTH; v++) exact[r][v] = Weights::add(exact[r][v], by[v][0], four, by[v][1], other);
                }
            }
            at += BYTES;
            for (int v = 0; v < WIDTH; v++) {
                const char* const panel = scales + v / VECTORS * panel_step;
                const Floats scale = Weights::scales(panel, v % VECTORS * LANES);
                for (int r = 0; r < ROWS; r++) {
                    const Floats factor = scale * all(input->scale[row % 4 + r]);
                    found[r][v] = fma(to_floats(Weights::finish(exact[r][v])), factor, found[r][v]);
                }
                if constexpr (Weights::KIND.minimum) {
                    const Floats minimum = Weights::scales(panel + SCALES / 2, v % VECTORS * LANES);
                    for (int r = 0; r < ROWS; r++) {
                        const float total = part_of(input->total, input->total_16, row % 4 + r, second);
                        found[r][v] = fma(minimum, all(total), found[r][v]);
                    }
                }
            }
            if ((column + COLUMNS) % GROUP == 0) input++, numbers += 4 * INPUT_BYTES;
        }
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < WIDTH; v++) store(sums + (row + r) * sum_step + v * LANES, found[r][v]);
    }
};

// Tiles of ROWS rows, where these are no more than `height`, then of fewer for what is left.
template <int ROWS, int PANELS, class Tiles>
inline void over_rows(const Tiles& tiles, int64_t row, int64_t rows, int64_t height, int64_t first, int64_t columns) {
    if constexpr (ROWS == 1 || ROWS * PANELS * VECTORS <= Tiles::MOST)
        if (ROWS <= height)
            for (; row + ROWS <= rows; row += ROWS) tiles.template tile<ROWS, PANELS>(row, first, columns);
    if constexpr (ROWS > 1)
        over_rows<Tiles::fewer(ROWS), PANELS>(tiles, row, rows, height, first, columns);
}

// All rows of PANELS panels, a chunk of columns after the other. Rows are divided evenly: few take as long as some more.
template <int PANELS, class Tiles>
inline void over_chunks(const Tiles& tiles, int64_t rows, int64_t columns, int64_t chunk) {
    const int64_t height = in_steps(rows, in_steps(rows, Tiles::ROWS_AT_ONCE));
    for (int64_t first = 0; first < columns; first += chunk) {
        const int64_t count = columns - first < chunk ? columns - first : chunk;
        over_rows<Tiles::ROWS_AT_ONCE, PANELS>(tiles, 0, rows, height, first, count);
    }
}

// What a product does with its sums: scale, bias, activation; then they are written, or added to what is there.
template <class Activation>
inline void finish_with(const Product* p, int64_t row, int64_t rows, int64_t panel, int64_t panels, const float* sums,
                        int64_t sum_step, Activation activation) {
    const int64_t column = panel * PANEL, count = smaller_of(p->matrix->out - column, panels * PANEL);
    const int64_t full = count / LANES * LANES;
    const float* const scales = p->matrix->format == INT8 ? scales_at(p->matrix, panel) : NULL;
    const float* const bias = p->bias ? p->bias + column : NULL;
    const bool squared = p->flags & SQUARED, adds = p->flags & ACCUMULATE;
    const auto finished = [&](const float* sum, int64_t i, Floats with_bias, Floats before) {
        Floats y = load(sum + i);
        y = activation(scales ? fma(y, load(scales + i), with_bias) : y + with_bias);
        if (squared) y = y * y;
        return adds ? before + y : y;
    };
    for (int64_t r = 0; r < rows; r++, sums += sum_step) {
        float* const to = p->out + (row + r) * p->out_step + column;
        for (int64_t i = 0; i < full; i += LANES)
            store(to + i, finished(sums, i, bias ? load(bias + i) : Floats{}, adds ? load(to + i) : Floats{}));
        if (const int64_t left = count - full) {
            const Floats with = bias ? load_part(bias + full, left) : Floats{}, before = load_part(to + full, left);
            store_part(to + full, finished(sums, full, with, before), left);
        }
    }
}

// Not in place: each kind of tile would have a copy of each activation.
__attribute__((noinline)) void finish(const Product* p, int64_t row, int64_t rows, int64_t panel, int64_t panels,
                                      const float* sums, int64_t sum_step) {
    with_activation(p->activation, [&](auto f) { finish_with(p, row, rows, panel, panels, sums, sum_step, f); });
}

// A block of rows times PANELS panels, before `finish`.
template <int PANELS>
inline void sum_block(const FloatTiles& tiles, int64_t rows, int64_t columns) {
    over_chunks<PANELS>(tiles, rows, columns, CHUNK);
}

template <int PANELS>
inline void sum_block(const Bfloat16Tiles& t, int64_t rows, int64_t columns) {
    if (rows < Bfloat16Tiles::MANY) return over_chunks<PANELS>(t, rows, columns, CHUNK);
    alignas(64) float wide[PANELS * CHUNK * PANEL];
    for (int64_t first = 0; first < columns; first += CHUNK) {
        const int64_t count = columns - first < CHUNK ? columns - first : CHUNK;
        for (int v = 0; v < PANELS * VECTORS; v++)
            for (int64_t k = 0; k < count; k += 2) {
                float* const to = wide + v / VECTORS * CHUNK * PANEL + k * PANEL + v % VECTORS * LANES;
                store(to, Bfloat16Tiles::even(t.pairs(first + k, v)));
                store(to + PANEL, Bfloat16Tiles::odd(t.pairs(first + k, v)));
            }
        const FloatTiles tiles = {t.x + first, t.x_step, wide, CHUNK * PANEL, PANEL, t.sums, t.sum_step};
        over_chunks<PANELS>(tiles, rows, count, CHUNK);
    }
}

template <int PANELS, class Weights>
inline void sum_block(const IntTiles<Weights>& tiles, int64_t rows, int64_t columns) {
    over_chunks<PANELS>(tiles, rows, columns, 4 * CHUNK);
}

// The tiles of a product from `row` and `panel` on.
inline FloatTiles tiles_of(const FloatTiles*, const Product* p, int64_t row, int64_t panel, float* sums, int64_t step) {
    return {p->x + row * p->x_step, p->x_step, (const float*)panel_at(p->matrix, panel), p->matrix->in * PANEL, PANEL,
            sums, step, p->far};
}

inline Bfloat16Tiles tiles_of(const Bfloat16Tiles*, const Product* p, int64_t row, int64_t panel, float* sums,
                              int64_t step) {
    return {p->x + row * p->x_step, p->x_step, (const uint16_t*)panel_at(p->matrix, panel),
            panel_bytes(BFLOAT16, p->matrix->in) / 2, sums, step};
}

template <class Weights>
inline IntTiles<Weights> tiles_of(const IntTiles<Weights>*, const Product* p, int64_t row, int64_t panel, float* sums,
                                  int64_t step) {
    const Rounded& r = p->rounded;
    const Rounded x = {r.in, r.numbers + row / 4 * (r.in / GROUP * 4 * INPUT_BYTES), r.groups + row / 4 * (r.in / GROUP)};
    return {x, panel_at(p->matrix, panel), panel_bytes(p->matrix->format, r.in), sums, step, p->far};
}

// The panels from `panel` on, PANELS at once, then fewer.
template <int PANELS, class Tiles>
inline void over_panels(const Product* p, int64_t row, int64_t rows, int64_t panel, int64_t end) {
    alignas(64) float sums[BLOCK * 2 * PANEL];
    if constexpr (PANELS > 1) {
        if (Tiles::panels_at_once(rows) < PANELS) return over_panels<PANELS / 2, Tiles>(p, row, rows, panel, end);
    }
    while (panel + PANELS <= end) {
        // With few rows several times as many, as `finish` takes some time to begin.
        const int64_t fit = larger_of(1, 64 / (rows * PANELS)) * PANELS;
        const int64_t count = smaller_of(fit, (end - panel) / PANELS * PANELS), step = count * PANEL;
        if (Tiles::ADDS) memset(sums, 0, 4 * (size_t)(rows * step));
        for (int64_t done = 0; done < count; done += PANELS)
            sum_block<PANELS>(tiles_of((const Tiles*)NULL, p, row, panel + done, sums + done * PANEL, step), rows,
                              p->matrix->in);
        finish(p, row, rows, panel, count, sums, step);
        panel += count;
    }
    if constexpr (PANELS > 1) over_panels<PANELS / 2, Tiles>(p, row, rows, panel, end);
}

template <class Tiles>
inline void multiply_block(const Product* p, int64_t row, int64_t end, int64_t panel, int64_t panel_end) {
    const int64_t block = Tiles::block(p->matrix->in);
    for (; row < end; row += block)
        over_panels<MOST_PANELS, Tiles>(p, row, end - row < block ? end - row : block, panel, panel_end);
}

inline void product(const Product* p, int64_t row, int64_t end, int64_t panel, int64_t panel_end) {
    switch (p->matrix->format) {
        case FLOAT32: return multiply_block<FloatTiles>(p, row, end, panel, panel_end);
        case BFLOAT16: return multiply_block<Bfloat16Tiles>(p, row, end, panel, panel_end);
        case INT8: return multiply_block<IntTiles<Weights<INT8>>>(p, row, end, panel, panel_end);
        case INT4: return multiply_block<IntTiles<Weights<INT4>>>(p, row, end, panel, panel_end);
        case Q8_0: return multiply_block<IntTiles<Weights<Q8_0>>>(p, row, end, panel, panel_end);
        case Q4_K: return multiply_block<IntTiles<Weights<Q4_K>>>(p, row, end, panel, panel_end);
        default: return multiply_block<IntTiles<Weights<Q6_K>>>(p, row, end, panel, panel_end);
    }
}

}  // namespace
