// The kernels of one instruction set: compiled once for each, with its flags and `ISA`, its name.
#include "kernels.h"

#include "attention.h"
#include "products.h"
#include "rounding.h"
#include "simd.h"

namespace {

void norm(const Op* op, const float* in, float* out) {
    const int64_t width = op->width / op->parts;
    for (int part = 0; part < op->parts; part++, in += width, out += width) {
        const bool root_mean = op->flags & ROOT_MEAN;
        const Floats mean = all(root_mean ? 0.0f : sum_of(width, in, [](Floats x) { return x; }) / (float)width);
        const float variance = sum_of(width, in, [&](Floats x) { return (x - mean) * (x - mean); }) / (float)width;
        const float size = op->flags & CLAMPED ? fmaxf(sqrtf(variance), op->a) : sqrtf(variance + op->a);
        const Floats factor = all(1.0f / size);
        if (op->weight) {
            map(width, in, op->weight, out, [&](Floats x, Floats w) { return (x - mean) * factor * w; });
        } else {
            map(width, in, out, [&](Floats x) { return (x - mean) * factor; });
        }
        if (op->bias) map(width, out, op->bias, out, [](Floats x, Floats b) { return x + b; });
    }
}

void rotate(const Op* op, float* x, int64_t position) {
    const int64_t half = op->width / 2;
    const float *cos = op->table + position * half, *sin = op->table2 + position * half;
    for (int head = 0; head < op->heads; head++, x += op->head) {
        if (op->flags & INTERLEAVED) {
            for (int64_t i = 0; i < half; i++) {
                const float a = x[2 * i], b = x[2 * i + 1];
                x[2 * i] = a * cos[i] - b * sin[i];
                x[2 * i + 1] = b * cos[i] + a * sin[i];
            }
        } else {
            for (int64_t i = 0; i < half; i++) {
                const float a = x[i], b = x[half + i];
                x[i] = a * cos[i] - b * sin[i];
                x[half + i] = b * cos[i] + a * sin[i];
            }
        }
    }
}

void gate(int32_t activation, int64_t width, const float* in, float* out) {
    with_activation(activation, [&](auto f) { map(width, in, in + width, out, [&](Floats x, Floats y) { return f(x) * y; }); });
}

void add(float factor, int64_t width, const float* in, float* out) {
    map(width, in, out, out, [&](Floats x, Floats y) { return fma(all(factor), x, y); });
}

void scale(float factor, int64_t width, const float* in, float* out) {
    map(width, in, out, [&](Floats x) { return all(factor) * x; });
}

void cap(float cap, int64_t width, const float* in, float* out) {
    map(width, in, out, [&](Floats x) { return all(cap) * hyperbolic_tangent(x / all(cap)); });
}

void rank(int64_t first, int64_t width, const float* x, Ranking* r) {
    constexpr int64_t BLOCK = 4 * LANES;
    float largest_here = -INFINITY;
    for (int64_t block = 0; block < width; block += BLOCK) {
        const int64_t end = block + BLOCK < width ? block + BLOCK : width;
        float most = -INFINITY;
        if (end == block + BLOCK) {
            Floats lanes = load(x + block);
            for (int64_t i = LANES; i < BLOCK; i += LANES) lanes = larger(lanes, load(x + block + i));
            most = largest(lanes);
        } else {
            for (int64_t i = block; i < end; i++) most = x[i] > most ? x[i] : most;
        }
        largest_here = most > largest_here ? most : largest_here;
        if (r->found == r->wanted && !(most > r->numbers[r->wanted - 1])) continue;
        for (int64_t i = block; i < end; i++) {
            if (r->found == r->wanted && !(x[i] > r->numbers[r->wanted - 1])) continue;
            int64_t place = r->found < r->wanted ? r->found++ : r->wanted - 1;
            for (; place > 0 && x[i] > r->numbers[place - 1]; place--)
                r->numbers[place] = r->numbers[place - 1], r->columns[place] = r->columns[place - 1];
            r->numbers[place] = x[i], r->columns[place] = first + i;
        }
    }
    if (largest_here > r->largest) {
        r->total *= expf(r->largest - largest_here);
        r->largest = largest_here;
    }
    // NaN anywhere makes the sum NaN, and so all that is given.
    r->total += sum_of(width, x, [&](Floats y) { return exponential(y - all(r->largest)); });
}

}  // namespace

#define NAMED(prefix, isa) prefix##isa
#define KERNELS(isa) NAMED(kernels_, isa)
#define TEXT(isa) #isa
#define NAME(isa) TEXT(isa)

extern const Kernels KERNELS(ISA) = {NAME(ISA), round_row, product, norm, rotate, gate, add, scale, cap, attend, rank};
