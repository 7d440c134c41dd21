// What is multiplied by whole numbers is rounded to whole numbers itself.
#pragma once
#include "dots.h"

namespace {

// 32 whole numbers from -127 to 127 as bytes; then their magnitudes, and -1 for the negative ones, where these are wanted.
inline void to_bytes(const Ints* numbers, int8_t* to) {
    typedef int8_t GroupOfBytes __attribute__((vector_size(GROUP)));
    GroupOfBytes bytes;
#if defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i* const n = (const __m256i*)numbers;
    // Each packs the halves of its vectors apart; the last puts them in order again.
    const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
    bytes = (GroupOfBytes)_mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
#else
    typedef int8_t LanesOfBytes __attribute__((vector_size(LANES)));
    for (int i = 0; i < GROUP / LANES; i++) {
        const LanesOfBytes some = __builtin_convertvector(numbers[i], LanesOfBytes);
        memcpy((int8_t*)&bytes + i * LANES, &some, LANES);
    }
#endif
    memcpy(to, &bytes, GROUP);
    if (INPUT_BYTES == GROUP) return;
    const GroupOfBytes signs = bytes < 0, sizes = (bytes ^ signs) - signs;
    memcpy(to + GROUP, &sizes, GROUP);
    memcpy(to + 2 * GROUP, &signs, GROUP);
}

// A row of x, rounded: the largest magnitude of each 32 numbers becomes 127; or less, where the magnitudes of four that
// are multiplied together (`Weights::APART`) would sum to more than 256, so that their products fit in 16 bits.
inline void round_row(const float* x, int64_t row, const Rounded* to) {
    constexpr int HALF = GROUP / LANES / 2;
    const int64_t groups = to->in / GROUP;
    int8_t* numbers = to->numbers + (row / 4 * groups * 4 + row % 4) * INPUT_BYTES;
    RoundedGroup* about = to->groups + row / 4 * groups;
    for (int64_t group = 0; group < groups; group++, about++, x += GROUP, numbers += 4 * INPUT_BYTES) {
        // As whole numbers magnitudes have the same order, and NaN is above all of them, so that it is not lost.
        Ints most = {};
        for (int i = 0; i < HALF; i++) {
            const Floats a = magnitude(load(x + i * LANES)), b = magnitude(load(x + GROUP / 2 + i * LANES)), two = a + b;
            // Rounding adds at most 2 to their sum, which is at most 254 before.
            const Ints four = (Ints)((two + neighbours_turned(two)) * all(0.5f));
            most = four > most ? four : most;
            most = (Ints)a > most ? (Ints)a : most;
            most = (Ints)b > most ? (Ints)b : most;
        }
        const int32_t bits = largest(most);
        float size;
        memcpy(&size, &bits, 4);
        // Below, the inverse would be no number: such an input is as good as zeros.
        const bool tiny = size < 1e-30f;
        const Floats inverse = all(tiny ? 0.0f : 127.0f / size);
        Ints rounded[2 * HALF], sums[2] = {};  // of each half the sum of the numbers, and 2^16 times that of their magnitudes
        for (int i = 0; i < 2 * HALF; i++) {
            // Infinity and NaN become 127, and the scale makes the result NaN.
            rounded[i] = to_nearest(larger(smaller(load(x + i * LANES) * inverse, all(127.0f)), all(-127.0f)));
            sums[i / HALF] += rounded[i];
            if (INPUT_BYTES > GROUP) sums[i / HALF] += (rounded[i] < 0 ? -rounded[i] : rounded[i]) << 16;
        }
        to_bytes(rounded, numbers);
        const float scale = tiny ? 0.0f : size / 127.0f;
        const int32_t half = sum(sums[0]), both = half + sum(sums[1]), total_16 = (int16_t)half, total = (int16_t)both;
        about->scale[row % 4] = scale;
        about->total[row % 4] = scale * (float)total;
        about->total_16[row % 4] = scale * (float)total_16;
        about->surplus[row % 4] = surplus_of(total, (both - total) >> 16);
        about->surplus_16[row % 4] = surplus_of(total_16, (half - total_16) >> 16);
    }
}

}  // namespace
