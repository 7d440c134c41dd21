// Which instruction sets this processor has, and the kernels for them.
#include <string.h>

#include "kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>

static bool bits(uint32_t word, uint32_t wanted) { return (word & wanted) == wanted; }

// 0 plain, 1 AVX2 with FMA and F16C, 2 and AVX-VNNI; what of AVX-512 there is, in `avx512`: 0, 1, 2 with VNNI.
static void x86_features(int* avx, int* avx512) {
    uint32_t a = 0, b = 0, c = 0, d = 0;
    *avx = *avx512 = 0;
    // FMA, OSXSAVE, AVX, F16C; then what of the registers the system saves.
    if (!__get_cpuid(1, &a, &b, &c, &d) || !bits(c, 1u << 12 | 1u << 27 | 1u << 28 | 1u << 29)) return;
    uint32_t saved = 0, high = 0;
    __asm__("xgetbv" : "=a"(saved), "=d"(high) : "c"(0));
    if (!bits(saved, 0x6) || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !bits(b, 1u << 5)) return;
    const uint32_t b7 = b, c7 = c;
    const bool more = __get_cpuid_count(7, 1, &a, &b, &c, &d);
    *avx = more && bits(a, 1u << 4) ? 2 : 1;
    // F, DQ, BW, VL.
    if (bits(saved, 0xe6) && bits(b7, 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31)) *avx512 = bits(c7, 1u << 11) ? 2 : 1;
}

const char* instruction_sets(void) {
    int avx = 0, avx512 = 0;
    x86_features(&avx, &avx512);
    if (avx == 0) return "plain";
    if (avx512 == 0) return avx == 2 ? "avxvnni avx2 plain" : "avx2 plain";
    if (avx512 == 1) return avx == 2 ? "avx512 avxvnni avx2 plain" : "avx512 avx2 plain";
    return avx == 2 ? "avx512vnni avx512 avxvnni avx2 plain" : "avx512vnni avx512 avx2 plain";
}

static const Kernels* const compiled[] = {&kernels_avx512vnni, &kernels_avx512, &kernels_avxvnni, &kernels_avx2,
                                          &kernels_plain};

#elif defined(__aarch64__)
#if defined(__linux__)
#include <sys/auxv.h>
#endif

const char* instruction_sets(void) {
#if defined(__linux__)
    const unsigned long dot_products = 1ul << 20;
    if (!(getauxval(AT_HWCAP) & dot_products)) return "plain";
#endif
    return "neon plain";  // every processor of Apple's has them
}

static const Kernels* const compiled[] = {&kernels_neon, &kernels_plain};

#else

const char* instruction_sets(void) { return "plain"; }

static const Kernels* const compiled[] = {&kernels_plain};

#endif

const Kernels* kernels_named(const char* name) {
    const size_t length = strlen(name);
    for (const char* at = instruction_sets(); *at; at += strcspn(at, " "), at += *at == ' ') {
        if (strcspn(at, " ") != length || strncmp(at, name, length) != 0) continue;
        for (const Kernels* kernels : compiled)
            if (strcmp(kernels->name, name) == 0) return kernels;
    }
    return NULL;
}
