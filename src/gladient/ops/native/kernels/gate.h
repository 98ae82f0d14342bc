// Gates from their logarithms, for the kernels that need one for each entry of the state (full.cpp, step.cpp).

#pragma once

#include <limits>

#include "simd.h"

// The larger and the smaller of a bound and x; NaN stays NaN.
template <class Vec> INLINE static inline Vec at_least(Vec low, Vec x) { return x < low ? low : x; }
template <class Vec> INLINE static inline Vec at_most(Vec high, Vec x) { return x > high ? high : x; }
#if defined(__AVX512F__)  // one instruction, which compilers do not see in the comparison
template <> inline Vector<float>::type at_least(Vector<float>::type low, Vector<float>::type x) {
  return (Vector<float>::type)_mm512_max_ps((__m512)low, (__m512)x);
}
template <> inline Vector<float>::type at_most(Vector<float>::type high, Vector<float>::type x) {
  return (Vector<float>::type)_mm512_min_ps((__m512)high, (__m512)x);
}
#elif defined(__AVX2__)
template <> inline Vector<float>::type at_least(Vector<float>::type low, Vector<float>::type x) {
  return (Vector<float>::type)_mm256_max_ps((__m256)low, (__m256)x);
}
template <> inline Vector<float>::type at_most(Vector<float>::type high, Vector<float>::type x) {
  return (Vector<float>::type)_mm256_min_ps((__m256)high, (__m256)x);
}
#endif
template <class F> INLINE static inline typename Vector<F>::type bounded(typename Vector<F>::type x, F low, F high) {
  using Vec = typename Vector<F>::type;
  return at_most(Vec{} + high, at_least(Vec{} + low, x));
}

// What exp needs of a number's bits: y + shift leaves round(y) + bias in the lowest bits, which moved to the exponent are 2^y.
template <class F> struct Bits;
template <> struct Bits<float> {
  typedef uint32_t type __attribute__((vector_size(BYTES)));
  static constexpr int mantissa = 23;
  static constexpr float shift = 12582912.0f + 127, low = -88, high = 89;  // powers 0 and infinity
  static constexpr float log2_high = 0.693359375f, log2_low = -2.12194440e-4f;
};
template <> struct Bits<double> {
  typedef uint64_t type __attribute__((vector_size(BYTES)));
  static constexpr int mantissa = 52;
  static constexpr double shift = 6755399441055744.0 + 1023, low = -709.2, high = 710;
  static constexpr double log2_high = 0.693145751953125, log2_low = 1.42860682030941723212e-6;
};

// exp(x) - 1 for |x| ≤ ln(2) / 2
INLINE static inline Vector<float>::type little(Vector<float>::type x) { return exp_minus_1(x); }
INLINE static inline Vector<double>::type little(Vector<double>::type x) {
  constexpr double factorials[] = {6227020800., 479001600., 39916800., 3628800., 362880., 40320., 5040., 720., 120., 24., 6., 2.};
  Vector<double>::type p = {};
  for (double factorial : factorials) p = p * x + 1 / factorial;
  return p * x * x + x;
}

// exp(x) = keep + change: keep is the nearest power of two, which multiplies without rounding, or 0 below the smallest normal
// number; the change holds the digits that their sum would lose.
template <class F>
INLINE static inline void split(typename Vector<F>::type x, typename Vector<F>::type &keep, typename Vector<F>::type &change) {
  using Vec = typename Vector<F>::type;
  using B = Bits<F>;
  const Vec y = bounded<F>(x, B::low, B::high), shifted = y * F(1.4426950408889634) + B::shift, whole = shifted - B::shift;
  keep = (Vec)((typename B::type)shifted << B::mantissa);
  change = little((y - whole * B::log2_high) - whole * B::log2_low) * keep;
}

// Rates and steps as their product takes them. Infinity becomes the largest number: a rate of -∞ forgets in any step, and a step
// of 0 changes nothing, even at that rate.
template <class F> INLINE static inline typename Vector<F>::type finite(typename Vector<F>::type x) {
  return bounded<F>(x, std::numeric_limits<F>::lowest(), std::numeric_limits<F>::max());
}
