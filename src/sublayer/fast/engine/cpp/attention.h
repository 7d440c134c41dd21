// Attention of some queries to the keys that any of them sees. Two passes: all scores, their softmax, then the values.
#pragma once
#include "products.h"

namespace {

// The sums of the lanes of four vectors.
inline void sums_of_four(const Floats* of, float* to) {
#if defined(__AVX2__)
    __m256 half[4];
    for (int i = 0; i < 4; i++) {
#if defined(__AVX512F__)
        half[i] = _mm256_add_ps(_mm512_extractf32x8_ps((__m512)of[i], 0),
                                _mm512_extractf32x8_ps((__m512)of[i], 1));
#else
        half[i] = (__m256)of[i];
#endif
    }
    const __m256 pairs = _mm256_hadd_ps(_mm256_hadd_ps(half[0], half[1]), _mm256_hadd_ps(half[2], half[3]));
    _mm_storeu_ps(to, _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1)));
#else
    for (int i = 0; i < 4; i++) to[i] = sum(of[i]);
#endif
}

// Where a key or a value stands.
inline int64_t place_of(const Queries* q, int64_t key) {
    return key * q->step + (q->rows ? q->rows[key] * q->row_step : 0);
}

// Scores of few queries: products along the width of a head, four keys at once. `queries` [QUERIES, padded]: zeros behind
// the head's width, as is what is read of a key there.
template <int QUERIES>
inline void few_scores(const Queries* q, const float* queries, int64_t padded, float* scores, int64_t scores_step) {
    for (int64_t key = 0; key < q->keys; key += 4) {
        const float* keys[4];
        // Behind the last key stands nothing that may be read; its own score is written over what is left of the four.
        for (int i = 0; i < 4; i++) keys[i] = q->key + place_of(q, key + i < q->keys ? key + i : q->keys - 1);
        Floats found[QUERIES][4] = {};
        int64_t k = 0;
        for (; k + LANES <= q->head; k += LANES)
            for (int i = 0; i < 4; i++) {
                const Floats by = load(keys[i] + k);
                for (int r = 0; r < QUERIES; r++) found[r][i] = fma(load(queries + r * padded + k), by, found[r][i]);
            }
        if (k < q->head)
            for (int i = 0; i < 4; i++) {
                const Floats by = load_part(keys[i] + k, q->head - k);
                for (int r = 0; r < QUERIES; r++) found[r][i] = fma(load(queries + r * padded + k), by, found[r][i]);
            }
        for (int r = 0; r < QUERIES; r++) sums_of_four(found[r], scores + r * scores_step + key);
    }
}

// Scores of many queries: 16 keys at once are made a panel, of which there is a product.
inline void many_scores(const Queries* q, const float* queries, int64_t padded, float* scores, int64_t scores_step,
                        float* panel) {
    for (int64_t key = 0; key < q->keys; key += PANEL) {
        for (int64_t lane = 0; lane < PANEL; lane++) {
            const float* const from = q->key + (key + lane < q->keys ? place_of(q, key + lane) : 0);
            for (int64_t k = 0; k < q->head; k++) panel[k * PANEL + lane] = key + lane < q->keys ? from[k] : 0.0f;
        }
        for (int64_t row = 0; row < q->count; row++) memset(scores + row * scores_step + key, 0, 4 * PANEL);
        over_chunks<1>(FloatTiles{queries, padded, panel, 0, PANEL, scores + key, scores_step}, q->count, q->head, CHUNK);
    }
}

// Scores to weights that sum to the number that is returned; zeros where the query sees no key. `padded` numbers.
inline float weights_of(const Queries* q, int64_t index, float* scores, int64_t padded) {
    const int64_t first = q->first[index], last = q->last[index];
    if (first >= last) {
        memset(scores, 0, 4 * (size_t)padded);
        return 0;
    }
    if (q->cap != 0) {
        const Floats cap = all(q->cap), inverse = all(1.0f / q->cap);
        map(last - first, scores + first, scores + first, [&](Floats s) { return cap * hyperbolic_tangent(s * inverse); });
    }
    if (q->bias[index])
        map(last - first, scores + first, q->bias[index] + first, scores + first, [](Floats s, Floats b) { return s + b; });
    for (int64_t key = 0; key < first; key++) scores[key] = -INFINITY;
    for (int64_t key = last; key < padded; key++) scores[key] = -INFINITY;
    Floats most = load(scores);
    for (int64_t key = LANES; key < padded; key += LANES) most = larger(most, load(scores + key));
    const Floats largest_score = all(largest(most));
    Floats total = {};
    for (int64_t key = 0; key < padded; key += LANES) {
        const Floats weight = exponential(load(scores + key) - largest_score);
        store(scores + key, weight);
        total += weight;
    }
    return sum(total);
}

// Values mixed by the weights, [count, padded_head].
template <int PANELS>
inline void mix(const FloatTiles& tiles, int64_t rows, int64_t panel, int64_t panels, int64_t keys) {
    for (; panel + PANELS <= panels; panel += PANELS) {
        FloatTiles some = tiles;
        some.weights += panel * PANEL;
        some.sums += panel * PANEL;
        over_chunks<PANELS>(some, rows, keys, CHUNK);
    }
    if constexpr (PANELS > 1) mix<PANELS / 2>(tiles, rows, panel, panels, keys);
}

inline void attend(const Queries* q, float* scratch) {
    const int64_t padded_head = round_up(q->head, PANEL), padded = round_up(q->keys, PANEL);
    float* const queries = scratch;
    float* const mixed = queries + q->count * padded_head;
    float* const scores = mixed + q->count * padded_head;
    float* const panel = scores + q->count * padded;
    memset(queries, 0, 8 * (size_t)(q->count * padded_head));  // and what is mixed
    for (int64_t i = 0; i < q->count; i++)
        map(q->head, q->query[i], queries + i * padded_head, [&](Floats x) { return x * all(q->scale); });
    if (q->many) {
        many_scores(q, queries, padded_head, scores, padded, panel);
    } else {
        int64_t i = 0;
        for (; i + 2 <= q->count; i += 2) few_scores<2>(q, queries + i * padded_head, padded_head, scores + i * padded, padded);
        if (i < q->count) few_scores<1>(q, queries + i * padded_head, padded_head, scores + i * padded, padded);
    }
    float inverse[MOST_QUERIES];
    for (int64_t i = 0; i < q->count; i++) {
        const float total = weights_of(q, i, scores + i * padded, padded);
        inverse[i] = total == 0 ? 0.0f : 1.0f / total;
    }
    FloatTiles tiles = {scores, padded, q->value, PANEL, q->step, mixed, padded_head};
    if (q->head % PANEL || q->rows) {
        // A vector would read behind the value's end; or values do not stand at one distance.
        for (int64_t key = 0; key < q->keys; key++) {
            float* const to = panel + key * padded_head;
            store(to + padded_head - LANES, Floats{});
            map(q->head, q->value + place_of(q, key), to, [](Floats x) { return x; });
        }
        tiles.weights = panel;
        tiles.row_step = padded_head;
    }
    const int64_t panels = padded_head / PANEL;
    q->count == 1 ? mix<MOST_PANELS>(tiles, 1, 0, panels, q->keys) : mix<(SUMS >= 24 ? 2 : 1)>(tiles, q->count, 0, panels, q->keys);
    for (int64_t i = 0; i < q->count; i++)
        map(q->head, mixed + i * padded_head, q->out[i], [&](Floats x) { return x * all(inverse[i]); });
}

}  // namespace
