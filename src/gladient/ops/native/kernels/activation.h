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
