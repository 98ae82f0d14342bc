// Activations of gates and convolutions.

#pragma once

#include "simd.h"

// 1 / (1 + exp(-x)); the bound keeps exp finite in float, where the sigmoid is 0 to the last digit anyway.
template <class F> INLINE static inline typename Vector<F>::type sigmoid(typename Vector<F>::type x) {
  return F(1) / (F(1) + exponential<F>(-x));
}

// The slope of x sigmoid(x).
template <class F> INLINE static inline typename Vector<F>::type silu_slope(typename Vector<F>::type x) {
  const auto s = sigmoid<F>(x);
  return s + x * s * (F(1) - s);
}

// log(1 + exp(x)) = max(x, 0) + log(1 + u) with u = exp(-|x|), and log(1 + u) = 2 artanh(s), s = u / (2 + u) ≤ 1/3, by its series: in
// float the ninth term is below the last digit.
template <class F> INLINE static inline typename Vector<F>::type softplus(typename Vector<F>::type x) {
  for (int l = 0; l < LANES<F>; ++l) x[l] = x[l] > 20 ? x[l] : std::log1p(std::exp(x[l]));
  return x;
}
template <> INLINE inline Vector<float>::type softplus<float>(Vector<float>::type x) {
  using Vec = Vector<float>::type;
  const Vec high = x > 0.0f ? x : Vec{}, u = exponential<float>(x - 2.0f * high), s = u / (2.0f + u), square = s * s;
  Vec sum = Vec{} + 1.0f / 15;
  for (int n = 13; n > 0; n -= 2) sum = sum * square + 1.0f / n;
  return high + 2.0f * s * sum;
}
