// Products of whole numbers, exact: sums of four columns' products, for as many rows of a matrix as a vector has lanes.
//
// `Input` is four numbers of an input, in every lane; STEP is how far apart in memory those of the next four columns are.
// `Int8Sums` multiplies numbers from -127 to 127, `Int4Sums` numbers from 0 to 15. The instructions of VNNI want one factor
// without a sign, so int8 is 128 too large there, which `start` makes up for: `surplus` is -128 times the sum of the
// input's numbers. A group is at most 32 columns: 8 steps of `add`.
#pragma once
#include "kernels.h"
#include "matrix.h"
#include "simd.h"

namespace {

// Four bytes, in every lane.
inline Ints four_bytes(const int8_t* from) {
    int32_t found;
    memcpy(&found, from, 4);
    return all(found);
}

#if defined(__AVX512F__)
typedef __m512i Bytes;
inline Bytes bytes_at(const char* from) { return _mm512_loadu_si512(from); }
inline Bytes low_halves(Bytes b) { return _mm512_and_si512(b, _mm512_set1_epi8(15)); }
inline Bytes high_halves(Bytes b) { return _mm512_and_si512(_mm512_srli_epi16(b, 4), _mm512_set1_epi8(15)); }
inline Bytes plus_128(Bytes b) { return _mm512_xor_si512(b, _mm512_set1_epi8(-128)); }
inline Bytes products_of_two(Bytes a, Bytes b) { return _mm512_maddubs_epi16(a, b); }
inline Bytes added(Bytes a, Bytes b) { return _mm512_add_epi16(a, b); }
inline Ints pairs_added(Bytes b) { return (Ints)_mm512_madd_epi16(b, _mm512_set1_epi16(1)); }
#elif defined(__AVX2__)
typedef __m256i Bytes;
inline Bytes bytes_at(const char* from) { return _mm256_loadu_si256((const __m256i*)from); }
inline Bytes low_halves(Bytes b) { return _mm256_and_si256(b, _mm256_set1_epi8(15)); }
inline Bytes high_halves(Bytes b) { return _mm256_and_si256(_mm256_srli_epi16(b, 4), _mm256_set1_epi8(15)); }
inline Bytes plus_128(Bytes b) { return _mm256_xor_si256(b, _mm256_set1_epi8(-128)); }
inline Bytes products_of_two(Bytes a, Bytes b) { return _mm256_maddubs_epi16(a, b); }
inline Bytes added(Bytes a, Bytes b) { return _mm256_add_epi16(a, b); }
inline Ints pairs_added(Bytes b) { return (Ints)_mm256_madd_epi16(b, _mm256_set1_epi16(1)); }
#else
typedef int8_t Bytes __attribute__((vector_size(16)));
inline Bytes bytes_at(const char* from) {
    Bytes found;
    memcpy(&found, from, sizeof found);
    return found;
}
inline Bytes low_halves(Bytes b) { return (Bytes)((Ints)b & all((int32_t)0x0f0f0f0f)); }
inline Bytes high_halves(Bytes b) { return (Bytes)((Ints)b >> 4 & all((int32_t)0x0f0f0f0f)); }
#endif

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)

constexpr int STEP = 16;

struct Input {
    Bytes numbers;
    explicit Input(const int8_t* at) : numbers((Bytes)four_bytes(at)) {}
};

struct Int4Sums {
    typedef Bytes Sums;
    static Sums start(int32_t) { return Sums{}; }
    static Sums add(Sums sums, Bytes by, const Input& x) {
#if defined(__AVX512F__)
        return _mm512_dpbusd_epi32(sums, by, x.numbers);
#else
        return _mm256_dpbusd_avx_epi32(sums, by, x.numbers);
#endif
    }
    static Ints finish(Sums sums) { return (Ints)sums; }
};

struct Int8Sums : Int4Sums {
    static Bytes prepared(Bytes by) { return plus_128(by); }
    static Sums start(int32_t surplus) { return (Sums)all(surplus); }
};

#elif defined(__AVX2__)

// Two products are added in 16 bits, which saturate: never here, as 2 * 127 * 127 < 2^15.
constexpr int STEP = 32;

struct Input {
    Bytes numbers, sizes;
    explicit Input(const int8_t* at) : numbers((Bytes)four_bytes(at)), sizes((Bytes)four_bytes(at + 16)) {}
    // The signs of the numbers times what is given.
    Bytes signs_times(Bytes by) const {
#if defined(__AVX512F__)
        return _mm512_mask_sub_epi8(by, _mm512_movepi8_mask(numbers), _mm512_setzero_si512(), by);
#else
        return _mm256_sign_epi8(by, numbers);
#endif
    }
};

// x w = |x| (w with the sign of x): the first factor has no sign, as the instruction wants it.
struct Int8Sums {
    typedef Ints Sums;
    static Bytes prepared(Bytes by) { return by; }
    static Sums start(int32_t) { return Sums{}; }
    static Sums add(Sums sums, Bytes by, const Input& x) {
        return sums + pairs_added(products_of_two(x.sizes, x.signs_times(by)));
    }
    static Ints finish(Sums sums) { return sums; }
};

// The 8 steps of a group fit in 16 bits, too: 8 * 2 * 15 * 127 < 2^15.
struct Int4Sums {
    typedef Bytes Sums;
    static Sums start(int32_t) { return Sums{}; }
    static Sums add(Sums sums, Bytes by, const Input& x) { return added(sums, products_of_two(by, x.numbers)); }
    static Ints finish(Sums sums) { return pairs_added(sums); }
};

#else

constexpr int STEP = 16;

struct Input {
    Bytes numbers;
    explicit Input(const int8_t* at) : numbers((Bytes)four_bytes(at)) {}
};

struct Int8Sums {
    typedef Ints Sums;
    static Bytes prepared(Bytes by) { return by; }
    static Sums start(int32_t) { return Sums{}; }
    static Sums add(Sums sums, Bytes by, const Input& x) {
#if defined(__ARM_FEATURE_DOTPROD)
        return (Sums)vdotq_s32((int32x4_t)sums, (int8x16_t)by, (int8x16_t)x.numbers);
#else
        // Two columns of a row in 16 bits, which hold the sum of two products; then both pairs.
        typedef int16_t Shorts __attribute__((vector_size(16)));
        const Shorts w = (Shorts)by, n = (Shorts)x.numbers;
        const Ints pairs = (Ints)((w << 8 >> 8) * (n << 8 >> 8) + (w >> 8) * (n >> 8));
        return sums + (pairs << 16 >> 16) + (pairs >> 16);
#endif
    }
    static Ints finish(Sums sums) { return sums; }
};

typedef Int8Sums Int4Sums;

#endif

// 32 whole numbers from -127 to 127 as bytes, and their magnitudes where they are wanted.
inline void to_bytes(const Ints* numbers, int8_t* to, int8_t* sizes) {
#if defined(__AVX2__) && !defined(__AVX512F__)
    const __m256i* const n = (const __m256i*)numbers;
    // Each packs the halves of its vectors apart; the last puts them in order again.
    const __m256i mixed = _mm256_packs_epi16(_mm256_packs_epi32(n[0], n[1]), _mm256_packs_epi32(n[2], n[3]));
    const __m256i bytes = _mm256_permutevar8x32_epi32(mixed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    _mm256_store_si256((__m256i*)to, bytes);
    if (STEP > 16) _mm256_store_si256((__m256i*)sizes, _mm256_abs_epi8(bytes));
#else
    typedef int8_t LanesOfBytes __attribute__((vector_size(LANES)));
    for (int i = 0; i < GROUP / LANES; i++) {
        const LanesOfBytes bytes = __builtin_convertvector(numbers[i], LanesOfBytes);
        const LanesOfBytes magnitudes = bytes < 0 ? -bytes : bytes;
        memcpy(to + i * LANES, &bytes, LANES);
        if (STEP > 16) memcpy(sizes + i * LANES, &magnitudes, LANES);
    }
#endif
}

}  // namespace
