// A vector of numbers as wide as the instruction set has them, so that what computes in float32 is written once.
//
// Sums run in one order whatever is computed beside them, and a product and a sum are fused only where `fma` says so (the
// compiler is told not to: -ffp-contract=off). So a number does not depend on which tile it was computed in.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__GNUC__) && !defined(__clang__)
// GCC warns of what its own headers leave open.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#if defined(__ARM_FEATURE_DOTPROD) && defined(__GNUC__) && !defined(__clang__)
// GCC before 13 has the dot products where Armv8.2 is asked for by its name, which zig does not take as an option.
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include <arm_neon.h>
#endif

// Whatever is in here is compiled once for each instruction set, and must not be merged by the linker.
namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16;
#elif defined(__AVX2__)
constexpr int LANES = 8;
#else
constexpr int LANES = 4;
#endif

typedef float Floats __attribute__((vector_size(4 * LANES)));
typedef int32_t Ints __attribute__((vector_size(4 * LANES)));

inline Floats load(const float* from) {
    Floats found;
    memcpy(&found, from, sizeof found);
    return found;
}

inline void store(float* to, Floats numbers) { memcpy(to, &numbers, sizeof numbers); }

// The first `count` numbers, and zeros.
inline Floats load_part(const float* from, int64_t count) {
    Floats found = {};
    memcpy(&found, from, 4 * (size_t)count);
    return found;
}

inline void store_part(float* to, Floats numbers, int64_t count) { memcpy(to, &numbers, 4 * (size_t)count); }

// Lets a compiler not read it from memory again for each use, as some think is cheaper.
template <class Vector>
inline void in_register(Vector& vector) {
#if defined(__x86_64__)
    __asm__("" : "+v"(vector));
#elif defined(__aarch64__)
    __asm__("" : "+w"(vector));
#endif
}

inline Ints to_ints(Floats numbers) { return __builtin_convertvector(numbers, Ints); }
inline Floats to_floats(Ints numbers) { return __builtin_convertvector(numbers, Floats); }

// The nearest integers, halves to the even one. `sum` and `largest` are of the lanes; largest integers of those that are not
// negative.
#if defined(__AVX512F__)
inline Ints to_nearest(Floats x) { return (Ints)_mm512_cvtps_epi32((__m512)x); }
inline int32_t largest(Ints numbers) { return _mm512_reduce_max_epi32((__m512i)numbers); }
inline int32_t sum(Ints numbers) { return _mm512_reduce_add_epi32((__m512i)numbers); }
inline float largest(Floats numbers) { return _mm512_reduce_max_ps((__m512)numbers); }
inline float sum(Floats numbers) { return _mm512_reduce_add_ps((__m512)numbers); }
inline Floats all(float number) { return (Floats)_mm512_set1_ps(number); }
inline Ints all(int32_t number) { return (Ints)_mm512_set1_epi32(number); }
inline Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c); }
inline Floats larger(Floats a, Floats b) { return (Floats)_mm512_max_ps((__m512)a, (__m512)b); }
inline Floats smaller(Floats a, Floats b) { return (Floats)_mm512_min_ps((__m512)a, (__m512)b); }
#elif defined(__AVX2__)
inline Ints to_nearest(Floats x) { return (Ints)_mm256_cvtps_epi32((__m256)x); }
// Halves are put together until one lane is left.
#define REDUCED(together, numbers, low, high, turned, first)              \
    const auto four = together(low(numbers), high(numbers, 1));           \
    const auto two = together(four, turned(four, four, 0x4e));            \
    return first(together(two, turned(two, two, 0xb1)))
#define TURNED(x, same, order) _mm_shuffle_epi32(x, order)
inline int32_t largest(Ints x) {
    REDUCED(_mm_max_epi32, (__m256i)x, _mm256_castsi256_si128, _mm256_extracti128_si256, TURNED, _mm_cvtsi128_si32);
}
inline int32_t sum(Ints x) {
    REDUCED(_mm_add_epi32, (__m256i)x, _mm256_castsi256_si128, _mm256_extracti128_si256, TURNED, _mm_cvtsi128_si32);
}
inline float largest(Floats x) {
    REDUCED(_mm_max_ps, (__m256)x, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm_shuffle_ps, _mm_cvtss_f32);
}
inline float sum(Floats x) {
    REDUCED(_mm_add_ps, (__m256)x, _mm256_castps256_ps128, _mm256_extractf128_ps, _mm_shuffle_ps, _mm_cvtss_f32);
}
#undef REDUCED
#undef TURNED
inline Floats all(float number) { return (Floats)_mm256_set1_ps(number); }
inline Ints all(int32_t number) { return (Ints)_mm256_set1_epi32(number); }
inline Floats fma(Floats a, Floats b, Floats c) { return (Floats)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c); }
inline Floats larger(Floats a, Floats b) { return (Floats)_mm256_max_ps((__m256)a, (__m256)b); }
inline Floats smaller(Floats a, Floats b) { return (Floats)_mm256_min_ps((__m256)a, (__m256)b); }
#else
inline Floats all(float number) { return Floats{number, number, number, number}; }
inline Ints all(int32_t number) { return Ints{number, number, number, number}; }
inline Ints to_nearest(Floats x) {
    const Floats large = all(12582912.0f);  // 1.5 * 2^23: behind it no bits are left for a fraction
    return to_ints((x + large) - large);
}
template <class Number, class Vector>
inline Number largest_of(Vector x) {
    const Number low = x[0] > x[2] ? x[0] : x[2], high = x[1] > x[3] ? x[1] : x[3];
    return low > high ? low : high;
}
inline int32_t largest(Ints x) { return largest_of<int32_t>(x); }
inline int32_t sum(Ints x) { return x[0] + x[2] + (x[1] + x[3]); }
inline float largest(Floats x) { return largest_of<float>(x); }
inline float sum(Floats x) { return x[0] + x[2] + (x[1] + x[3]); }
#if defined(__ARM_NEON)
inline Floats fma(Floats a, Floats b, Floats c) { return (Floats)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b); }
#else
inline Floats fma(Floats a, Floats b, Floats c) { return a * b + c; }
#endif
// As x86 has them: the second where one of them is no number.
inline Floats larger(Floats a, Floats b) { return a > b ? a : b; }
inline Floats smaller(Floats a, Floats b) { return a < b ? a : b; }
#endif

inline Floats magnitude(Floats x) { return (Floats)((Ints)x & all((int32_t)0x7fffffff)); }

// The lanes 2 i and 2 i + 1 in each other's place.
inline Floats neighbours_turned(Floats x) {
#if defined(__AVX512F__)
    return (Floats)_mm512_permute_ps((__m512)x, 0xb1);
#elif defined(__AVX2__)
    return (Floats)_mm256_permute_ps((__m256)x, 0xb1);
#else
    return Floats{x[1], x[0], x[3], x[2]};
#endif
}

// x with the sign of `of`.
inline Floats with_sign(Floats x, Floats of) { return (Floats)((Ints)x | ((Ints)of & all((int32_t)0x80000000))); }

// e^x, to 2e-7 of itself. 0 below -87, where float32 has no normal numbers left; above 88 as at 88.
inline Floats exponential(Floats x) {
    const Floats lowest = all(-87.0f);
    // NaN stays: it is the second argument.
    const Floats within = smaller(all(88.0f), larger(lowest, x));
    const Ints power = to_nearest(within * all(1.44269504088896341f));
    const Floats n = to_floats(power);
    // ln 2 in two parts, the first of which has few bits, so that n times it is exact.
    const Floats r = fma(n, all(2.12194440e-4f), fma(n, all(-0.693359375f), within));
    Floats p = all(1.9875691500e-4f);
    p = fma(p, r, all(1.3981999507e-3f));
    p = fma(p, r, all(8.3334519073e-3f));
    p = fma(p, r, all(4.1665795894e-2f));
    p = fma(p, r, all(1.6666665459e-1f));
    p = fma(p, r, all(5.0000001201e-1f));
    p = fma(p, r * r, r) + all(1.0f);
    return x < lowest ? Floats{} : p * (Floats)((power + all((int32_t)127)) << 23);
}

// As in Cephes: a polynomial about 0, where 1 - 2 / (e^2x + 1) would lose its last digits.
inline Floats hyperbolic_tangent(Floats x) {
    const Floats size = magnitude(x), square = x * x;
    Floats p = all(-5.70498872745e-3f);
    p = fma(p, square, all(2.06390887954e-2f));
    p = fma(p, square, all(-5.37397155531e-2f));
    p = fma(p, square, all(1.33314422036e-1f));
    p = fma(p, square, all(-3.33332819422e-1f));
    const Floats small = fma(p * square, x, x);
    const Floats rest = all(2.0f) / (exponential(size + size) + all(1.0f));
    return size < all(0.625f) ? small : with_sign(all(1.0f) - rest, x);
}

// 1 - erf(x) for x >= 0, to 3e-7 of itself where it is not tiny (Numerical Recipes, 6.2).
inline Floats complementary_error(Floats x) {
    const Floats t = all(1.0f) / fma(x, all(0.5f), all(1.0f));
    Floats p = all(0.17087277f);
    p = fma(p, t, all(-0.82215223f));
    p = fma(p, t, all(1.48851587f));
    p = fma(p, t, all(-1.13520398f));
    p = fma(p, t, all(0.27886807f));
    p = fma(p, t, all(-0.18628806f));
    p = fma(p, t, all(0.09678418f));
    p = fma(p, t, all(0.37409196f));
    p = fma(p, t, all(1.00002368f));
    p = fma(p, t, all(-1.26551223f));
    return t * exponential(fma(-x, x, p));
}

// f of each of `count` numbers.
template <class Function>
inline void map(int64_t count, const float* in, float* out, Function f) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) store(out + i, f(load(in + i)));
    if (i < count) store_part(out + i, f(load_part(in + i, count - i)), count - i);
}

// f of each of `count` pairs of numbers.
template <class Function>
inline void map(int64_t count, const float* in, const float* in2, float* out, Function f) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) store(out + i, f(load(in + i), load(in2 + i)));
    if (i < count) store_part(out + i, f(load_part(in + i, count - i), load_part(in2 + i, count - i)), count - i);
}

// The sum of f of each of `count` numbers. f of 0 need not be 0.
template <class Function>
inline float sum_of(int64_t count, const float* in, Function f) {
    Floats total = {};
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) total += f(load(in + i));
    float found = sum(total);
    if (i < count) {
        const Floats last = f(load_part(in + i, count - i));
        for (int lane = 0; lane < count - i; lane++) found += last[lane];
    }
    return found;
}

}  // namespace
