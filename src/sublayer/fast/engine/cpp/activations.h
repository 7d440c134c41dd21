// What is made of each number behind a product.
#pragma once
#include "engine.h"
#include "simd.h"

namespace {

inline Floats gelu(Floats x) {
    const Floats beyond = complementary_error(magnitude(x) * all(0.707106781186547524f));
    return x * all(0.5f) * (x < Floats{} ? beyond : all(2.0f) - beyond);
}

inline Floats gelu_tanh(Floats x) {
    const Floats inner = all(0.797884560802865356f) * fma(all(0.044715f) * x * x, x, x);
    return x * all(0.5f) * (all(1.0f) + hyperbolic_tangent(inner));
}

// use(f), where f is the activation.
template <class Use>
inline void with_activation(int32_t activation, Use use) {
    switch (activation) {
        case RELU: return use([](Floats x) { return larger(Floats{}, x); });
        case GELU: return use(gelu);
        case GELU_TANH: return use(gelu_tanh);
        case SILU: return use([](Floats x) { return x / (all(1.0f) + exponential(-x)); });
        case TANH: return use(hyperbolic_tangent);
        default: return use([](Floats x) { return x; });
    }
}

}  // namespace
