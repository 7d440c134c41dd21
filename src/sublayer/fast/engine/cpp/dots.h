// Products of whole numbers, exact: sums of four columns' products, for as many rows of a matrix as a vector has lanes.
//
// `Input` is four numbers of an input, in every lane; a group of 32 of a row takes INPUT_BYTES.
// `Int8Sums` multiplies numbers from -127 to 127, `Int4Sums` numbers from 0 to 15. `add` takes twice four columns. The
// instructions want one factor without a sign; what is too large or too small by that, `start` makes up for with the
// input's `surplus`. A group is at most 32 columns: 4 times `add`.
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

// int8 is 128 too large; `surplus` is -128 times the sum of the input's numbers.
constexpr int INPUT_BYTES = GROUP;
inline int32_t surplus_of(int32_t total, int32_t) { return -128 * total; }

struct Input {
    Bytes numbers;
    explicit Input(const int8_t* at) : numbers((Bytes)four_bytes(at)) {}
};

struct Int4Sums {
    typedef Bytes Sums;
    static Sums start(int32_t) { return Sums{}; }
    static Sums add(Sums sums, Bytes by, const Input& x, Bytes by2, const Input& x2) {
#if defined(__AVX512F__)
        return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sums, by, x.numbers), by2, x2.numbers);
#else
        return _mm256_dpbusd_avx_epi32(_mm256_dpbusd_avx_epi32(sums, by, x.numbers), by2, x2.numbers);
#endif
    }
    static Ints finish(Sums sums) { return (Ints)sums; }
};

template <bool FOUR_FIT>
struct Int8Sums : Int4Sums {
    static Bytes prepared(Bytes by) { return plus_128(by); }
    static Sums start(int32_t surplus) { return (Sums)all(surplus); }
};

#elif defined(__AVX2__)

// x w = |x| (w with the sign of x): the first factor has no sign, as the instruction wants it. Where x is negative, all bits
// of w are turned, which makes -w - 1 of it; `surplus` is the sum of these |x|. Two products are added in 16 bits, which
// saturate: never here, as 2 * 127 * 128 < 2^15. Nor do four, where `round_row` sees to it.
constexpr int INPUT_BYTES = 3 * GROUP;
inline int32_t surplus_of(int32_t total, int32_t sizes) { return (sizes - total) / 2; }

struct Input {
    Bytes numbers, sizes, signs;
    explicit Input(const int8_t* at)
        : numbers((Bytes)four_bytes(at)), sizes((Bytes)four_bytes(at + GROUP)), signs((Bytes)four_bytes(at + 2 * GROUP)) {}
};

template <bool FOUR_FIT>
struct Int8Sums {
    typedef Ints Sums;
    static Bytes prepared(Bytes by) { return by; }
    static Sums start(int32_t surplus) { return all(surplus); }
    static Bytes products(Bytes by, const Input& x) { return products_of_two(x.sizes, (Bytes)((Ints)by ^ (Ints)x.signs)); }
    static Sums add(Sums sums, Bytes by, const Input& x, Bytes by2, const Input& x2) {
        if (FOUR_FIT) return sums + pairs_added(added(products(by, x), products(by2, x2)));
        return sums + pairs_added(products(by, x)) + pairs_added(products(by2, x2));
    }
    static Ints finish(Sums sums) { return sums; }
};

// The 8 steps of a group fit in 16 bits, too: 8 * 2 * 15 * 127 < 2^15.
struct Int4Sums {
    typedef Bytes Sums;
    static Sums start(int32_t) { return Sums{}; }
    static Sums add(Sums sums, Bytes by, const Input& x, Bytes by2, const Input& x2) {
        return added(added(sums, products_of_two(by, x.numbers)), products_of_two(by2, x2.numbers));
    }
    static Ints finish(Sums sums) { return pairs_added(sums); }
};

#else

constexpr int INPUT_BYTES = GROUP;
inline int32_t surplus_of(int32_t, int32_t) { return 0; }

struct Input {
    Bytes numbers;
    explicit Input(const int8_t* at) : numbers((Bytes)four_bytes(at)) {}
};

struct Int4Sums {
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
    static Sums add(Sums sums, Bytes by, const Input& x, Bytes by2, const Input& x2) { return add(add(sums, by, x), by2, x2); }
    static Ints finish(Sums sums) { return sums; }
};

template <bool FOUR_FIT>
struct Int8Sums : Int4Sums {};

#endif

}  // namespace
