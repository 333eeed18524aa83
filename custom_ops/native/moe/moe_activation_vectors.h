// The activations, written once for the vector widths. `V` is one of machine/vectors_LEVEL.h and
//   least, greatest          of each lane: the second operand where one is NaN
//   quotient, difference
//   nearest                  whole number
//   times_power_of_two       x · 2^n for whole numbers n, which may be far outside the exponents
//   pairs(a, b, even, odd)   every other lane of both
//   beyond(x, limit, y, z)   z where x > limit, else y
//
// Included by files that are compiled for one level, each with a V of its own in an anonymous
// namespace: so every copy of this code stays in its file.
#pragma once

#include "moe/moe_activation.h"

namespace gptoss {

template <class V>
struct VectorActivation {
  using Vector = typename V::Vector;

  static constexpr size_t kLanes = V::kLanes;
  static constexpr float kMinusLog2E = -1.44269504f;

  // 2^x: a power of two times the series of 2^r for what is left, |r| ≤ 1/2; its first missing term
  // is below 1e-8.
  static Vector exp2(Vector x) {
    const Vector whole = V::nearest(x), r = V::difference(x, whole);
    constexpr float kSeries[] = {
        1.52527338e-5f, 1.54035304e-4f, 1.33335581e-3f, 9.61812911e-3f,
        5.55041087e-2f, 2.40226507e-1f, 6.93147181e-1f, 1.0f};  // ln(2)^n / n!, n = 7 … 0
    Vector sum = V::zero();
    for (const float term : kSeries) sum = V::add_product(V::broadcast(term), sum, r);
    return V::times_power_of_two(sum, whole);
  }

  // The first `left` products from `index` on and their biases, which may be null, added.
  static Vector biased(const float* products, const std::byte* bias, size_t index, size_t left) {
    if (left >= kLanes) {
      const Vector x = V::load(products + index);
      return bias == nullptr ? x : V::sum(x, V::load(bias + index * sizeof(float)));
    }
    const Vector x = V::load_some(products + index, left);
    return bias == nullptr ? x : V::sum(x, V::load_some(bias + index * sizeof(float), left));
  }

  // Without a mask where all lanes are meant, which is quicker to read back.
  static void store(float* out, size_t left, Vector x) {
    if (left >= kLanes) return V::store(out, x);
    V::store_some(out, x, left);
  }

  struct Pairs {
    static void load(const GateUp& products, size_t i, Vector& gate, Vector& up) {
      const size_t left = 2 * (products.count - i);
      const Vector a = biased(products.gate, products.gate_bias, 2 * i, left);
      const Vector b = biased(products.gate, products.gate_bias, 2 * i + kLanes,
                              left > kLanes ? left - kLanes : 0);
      V::pairs(a, b, gate, up);
    }
  };

  struct Halves {
    static void load(const GateUp& products, size_t i, Vector& gate, Vector& up) {
      gate = biased(products.gate, products.gate_bias, i, products.count - i);
      up = biased(products.up, products.up_bias, i, products.count - i);
    }
  };

  template <class Layout>
  static void swiglu(const GateUp& products, const ExpertActivation& activation) {
    const Vector top = V::broadcast(activation.limit), bottom = V::broadcast(-activation.limit);
    const Vector gain = V::broadcast(activation.alpha * kMinusLog2E),
                 beta = V::broadcast(activation.beta);
    for (size_t i = 0; i < products.count; i += kLanes) {
      Vector gate, up;
      Layout::load(products, i, gate, up);
      gate = V::least(top, gate);
      up = V::greatest(bottom, V::least(top, up));
      const Vector below = V::sum(V::broadcast(1), exp2(V::product(gain, gate)));
      const Vector result = V::quotient(V::product(V::sum(up, beta), gate), below);
      store(products.gate + i, products.count - i, result);
    }
  }

  // Horner's rule, the highest term first.
  template <size_t terms>
  static Vector polynomial(const float (&series)[terms], Vector x) {
    Vector sum = V::broadcast(series[0]);
    for (size_t i = 1; i < terms; ++i) sum = V::add_product(V::broadcast(series[i]), sum, x);
    return sum;
  }

  // x · P(x²) / Q(x²), Eigen's generic_fast_erf_float, within 5e-7 up to |x| = 4; beyond, erf is ±1
  // in float32.
  static Vector erf(Vector x) {
    constexpr float kP[] = {-2.72614226e-10f, 2.77068142e-8f,  -2.10102402e-6f, -5.69250639e-5f,
                            -7.34990631e-4f,  -2.95459980e-3f, -1.60960333e-2f};
    constexpr float kQ[] = {-1.45660718e-5f, -2.13374055e-4f, -1.68282697e-3f, -7.37332917e-3f,
                            -1.42647391e-2f};
    const Vector square = V::product(x, x);
    const Vector inside =
        V::quotient(V::product(x, polynomial(kP, square)), polynomial(kQ, square));
    const Vector four = V::broadcast(4), one = V::broadcast(1), minus = V::difference(V::zero(), x);
    const Vector above = V::beyond(x, four, inside, one);
    return V::beyond(minus, four, above, V::difference(V::zero(), one));
  }

  static Vector gelu(Vector x) {
    const Vector half = V::product(x, V::broadcast(0.5f));
    return V::product(half, V::sum(V::broadcast(1), erf(V::product(x, V::broadcast(0.70710678f)))));
  }

  // x · σ(y), given −log2(e) · y.
  static Vector times_sigmoid(Vector x, Vector exponent) {
    return V::quotient(x, V::sum(V::broadcast(1), exp2(exponent)));
  }

  static Vector gelu_tanh(Vector x) {
    const Vector cubic = V::product(V::product(x, x), V::product(x, V::broadcast(0.044715f)));
    return times_sigmoid(x, V::product(V::sum(x, cubic), V::broadcast(1.59576912f * kMinusLog2E)));
  }

  static Vector relu(Vector x) { return V::greatest(V::zero(), x); }

  static Vector silu(Vector x) {
    return times_sigmoid(x, V::product(x, V::broadcast(kMinusLog2E)));
  }

  template <Vector (*function)(Vector)>
  static void ungated(const GateUp& products, const ExpertActivation&) {
    for (size_t i = 0; i < products.count; i += kLanes) {
      const Vector x = biased(products.gate, products.gate_bias, i, products.count - i);
      store(products.gate + i, products.count - i, function(x));
    }
  }

  static Activate kernel(const ExpertActivation& activation) {
    switch (activation.function) {
      case ExpertFunction::swiglu:
        return activation.interleaved ? swiglu<Pairs> : swiglu<Halves>;
      case ExpertFunction::gelu:
        return ungated<gelu>;
      case ExpertFunction::gelu_tanh:
        return ungated<gelu_tanh>;
      case ExpertFunction::relu:
        return ungated<relu>;
      case ExpertFunction::silu:
        return ungated<silu>;
    }
    return nullptr;
  }
};

}  // namespace gptoss
