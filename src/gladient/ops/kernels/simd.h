// What the kernels share: vectors of one AVX-512 register (the compiler splits them where registers are smaller),
// sums over lanes, the exponential, threads.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif

using Int = int64_t;

#define INLINE __attribute__((always_inline))  // where vectors would travel through memory otherwise

// exp(x) - 1 for |x| ≤ ln(2) / 2
static inline float exp_minus_1(float x) {
  float p = 1.9875691500e-4f;
  p = p * x + 1.3981999507e-3f;
  p = p * x + 8.3334519073e-3f;
  p = p * x + 4.1665795894e-2f;
  p = p * x + 1.6666665459e-1f;
  p = p * x + 5.0000001201e-1f;
  return p * x * x + x;
}
static inline double exp_minus_1(double x) { return std::expm1(x); }

// exp(x), free of branches so that loops become vector code; below the smallest normal number it is 0
static inline float exp_(float x) {
  const float y = std::min(std::max(x, -87.0f), 88.0f);
  const float n = std::nearbyint(y * 1.44269504f);
  const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return x < -87.0f ? 0.0f : x > 88.0f ? INFINITY : (exp_minus_1(r) + 1.0f) * power;
}
static inline double exp_(double x) { return std::exp(x); }

// Every thread makes itself a worker and calls it with the jobs that it gets. OpenMP, because torch's own pool of threads
// then stands ready; without it one thread does the work.
template <class Make> static void parallel(Int jobs, Int threads, Make make) {
  const Int together = std::max<Int>(1, jobs / (8 * threads));
#pragma omp parallel num_threads(threads) if (threads > 1 && jobs > 1)
  {
    auto worker = make();
#pragma omp for schedule(dynamic, together)
    for (Int i = 0; i < jobs; ++i) worker(i);
  }
}

template <class F> struct Vector { typedef F type __attribute__((vector_size(64))); };

// Sums over lanes, row l into lane l, of the first `rows` rows: `half` sums rows that differ in bit D of their number, and
// lanes likewise.
template <class Vec, int D, int... I> static inline Vec half(Vec a, Vec b, std::integer_sequence<int, I...>) {
  constexpr int L = sizeof...(I);
  return __builtin_shufflevector(a, b, ((I & D) ? I + L : I)...) +
         __builtin_shufflevector(a, b, ((I & D) ? (I ^ D) + L : I ^ D)...);
}
template <class F, int Rows = 64 / sizeof(F), class Row>
INLINE static inline typename Vector<F>::type row_sums(Row row, Int rows = 64 / sizeof(F), int first = 0) {
  if (first >= rows) return typename Vector<F>::type{};
  if constexpr (Rows == 1) return row(first);
  else {
    const auto a = row_sums<F, Rows / 2>(row, rows, first), b = row_sums<F, Rows / 2>(row, rows, first + Rows / 2);
    return half<typename Vector<F>::type, Rows / 2>(a, b, std::make_integer_sequence<int, 64 / sizeof(F)>());
  }
}

// Lane l of the result is the sum of the lanes from l on, or (D < 0) up to l.
template <int D, class Vec, int... I> static inline Vec shifted(Vec x, std::integer_sequence<int, I...>) {
  constexpr int L = sizeof...(I);
  return __builtin_shufflevector(x, Vec{}, (I + D >= 0 && I + D < L ? I + D : L)...);
}
template <int D, class F> static inline typename Vector<F>::type running_sums(typename Vector<F>::type x) {
  constexpr int L = 64 / sizeof(F);
  if constexpr (D < L && -D < L) return running_sums<2 * D, F>(x + shifted<D>(x, std::make_integer_sequence<int, L>()));
  return x;
}

// The first `count` lanes from memory, zeros behind them; and back.
template <class F> static inline typename Vector<F>::type load(const F *x, Int count) {
  typename Vector<F>::type y = {};
  std::memcpy(&y, x, count * sizeof(F));
  return y;
}
template <class F> static inline void store(typename Vector<F>::type y, F *x, Int count) {
  std::memcpy(x, &y, count * sizeof(F));
}
#ifdef __AVX512F__
template <> inline Vector<float>::type load(const float *x, Int count) {
  return (Vector<float>::type)_mm512_maskz_loadu_ps((1u << count) - 1, x);
}
template <> inline Vector<double>::type load(const double *x, Int count) {
  return (Vector<double>::type)_mm512_maskz_loadu_pd((1u << count) - 1, x);
}
template <> inline void store(Vector<float>::type y, float *x, Int count) {
  _mm512_mask_storeu_ps(x, (1u << count) - 1, (__m512)y);
}
template <> inline void store(Vector<double>::type y, double *x, Int count) {
  _mm512_mask_storeu_pd(x, (1u << count) - 1, (__m512d)y);
}
#endif

// The scalar functions above for a whole vector.
static inline Vector<float>::type exp_minus_1(Vector<float>::type x) {
  auto p = 1.9875691500e-4f * x + 1.3981999507e-3f;
  p = p * x + 8.3334519073e-3f;
  p = p * x + 4.1665795894e-2f;
  p = p * x + 1.6666665459e-1f;
  p = p * x + 5.0000001201e-1f;
  return p * x * x + x;
}
template <class F> INLINE static inline typename Vector<F>::type exponential(typename Vector<F>::type x) {
  for (int l = 0; l < 64 / int(sizeof(F)); ++l) x[l] = exp_(x[l]);
  return x;
}
template <> INLINE inline Vector<float>::type exponential<float>(Vector<float>::type x) {
  using Vec = Vector<float>::type;
  typedef int32_t Integers __attribute__((vector_size(64)));
  const Vec low = Vec{} - 87.0f, high = Vec{} + 88.0f, whole = Vec{} + 12582912.0f;  // adding it rounds to an integer
  const Vec y = x < low ? low : x > high ? high : x, n = (y * 1.44269504f + whole) - whole;
  const Vec r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
  const Vec power = (Vec)((__builtin_convertvector(n, Integers) + 127) << 23);
  return x < low ? Vec{} : x > high ? Vec{} + INFINITY : (exp_minus_1(r) + 1.0f) * power;
}
static inline Vector<double>::type exp_minus_1(Vector<double>::type x) {
  for (int l = 0; l < 8; ++l) x[l] = exp_minus_1(x[l]);
  return x;
}

// exp(x) = keep + change, keep 0 or 1: near 1 the change holds the digits that the sum would lose.
template <class F>
static inline void decay(typename Vector<F>::type x, typename Vector<F>::type &keep, typename Vector<F>::type &change) {
  using Vec = typename Vector<F>::type;
  const Vec low = Vec{} - F(0.34), high = Vec{} + F(0.34), near = x < low ? low : x > high ? high : x;
  keep = near == x ? Vec{} + F(1) : Vec{};
  change = near == x ? exp_minus_1(near) : exponential<F>(x);
}

// sum ← (keep + change) sum + x, where rest takes up what sum rounds off and gives it back.
template <class F>
static inline void add(typename Vector<F>::type &sum, typename Vector<F>::type &rest, typename Vector<F>::type keep,
                       typename Vector<F>::type change, typename Vector<F>::type x) {
  const auto kept = keep * sum, added = x + change * sum + (keep + change) * rest;
  sum = kept + added;
  rest = (kept - sum) + added;
}

// A square of L vectors transposed in place: each round interleaves its halves, which turns the bits of the index by one.
static inline void flip(Vector<float>::type *x) {
  Vector<float>::type y[16];
  for (int round = 0; round < 4; ++round) {
    for (int i = 0; i < 8; ++i) {
      y[2 * i] = __builtin_shufflevector(x[i], x[i + 8], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + 8], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    std::copy(y, y + 16, x);
  }
}
static inline void flip(Vector<double>::type *x) {
  Vector<double>::type y[8];
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 4; ++i) {
      y[2 * i] = __builtin_shufflevector(x[i], x[i + 4], 0, 8, 1, 9, 2, 10, 3, 11);
      y[2 * i + 1] = __builtin_shufflevector(x[i], x[i + 4], 4, 12, 5, 13, 6, 14, 7, 15);
    }
    std::copy(y, y + 8, x);
  }
}
