// What the kernels share: vectors of one AVX-512 register (the compiler splits them where registers are smaller),
// sums over lanes, the exponential, threads.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#ifdef __AVX512F__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

using Int = int64_t;

// exp(x), free of branches so that loops become vector code; below the smallest normal number it is 0
static inline float exp_(float x) {
  const float y = std::min(std::max(x, -87.0f), 88.0f);
  const float n = std::nearbyint(y * 1.44269504f);
  const float r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
  float power;
  std::memcpy(&power, &bits, 4);
  return x < -87.0f ? 0.0f : x > 88.0f ? INFINITY : p * power;
}
static inline double exp_(double x) { return std::exp(x); }

// OpenMP, because torch's own pool of threads then stands ready; without it one thread does the work.
template <class Body> static void parallel(Int jobs, Int threads, Body body) {
  const Int together = std::max<Int>(1, jobs / (8 * threads));
#pragma omp parallel for schedule(dynamic, together) num_threads(threads) if (threads > 1 && jobs > 1)
  for (Int i = 0; i < jobs; ++i) body(i);
}

template <class F> struct Vector { typedef F type __attribute__((vector_size(64))); };

// Lane l of the result is the sum of the lanes of x[l].
static inline Vector<float>::type row_sums(const Vector<float>::type *x) {
  Vector<float>::type y[16];
  std::copy(x, x + 16, y);
  for (int n = 8; n; n /= 2)
    for (int i = 0; i < n; ++i)
      y[i] = __builtin_shufflevector(y[2 * i], y[2 * i + 1], 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30) +
             __builtin_shufflevector(y[2 * i], y[2 * i + 1], 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
  return y[0];
}
static inline Vector<double>::type row_sums(const Vector<double>::type *x) {
  Vector<double>::type y[8];
  std::copy(x, x + 8, y);
  for (int n = 4; n; n /= 2)
    for (int i = 0; i < n; ++i)
      y[i] = __builtin_shufflevector(y[2 * i], y[2 * i + 1], 0, 2, 4, 6, 8, 10, 12, 14) +
             __builtin_shufflevector(y[2 * i], y[2 * i + 1], 1, 3, 5, 7, 9, 11, 13, 15);
  return y[0];
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
template <> inline void store(Vector<float>::type y, float *x, Int count) {
  _mm512_mask_storeu_ps(x, (1u << count) - 1, (__m512)y);
}
#endif

// Vec of exponentials.
template <class F> static inline typename Vector<F>::type exponential(typename Vector<F>::type x) {
  constexpr int L = 64 / sizeof(F);
  alignas(64) F y[L];
  std::memcpy(y, &x, 64);
  for (int l = 0; l < L; ++l) y[l] = exp_(y[l]);
  std::memcpy(&x, y, 64);
  return x;
}

// Asks for huge pages behind memory that nobody touched yet: filling it then costs a fifth.
static inline void huge_pages(void *x, Int bytes) {
#ifdef __linux__
  const auto page = (reinterpret_cast<uintptr_t>(x) + 4095) / 4096 * 4096, end = reinterpret_cast<uintptr_t>(x) + bytes;
  if (end > page) madvise(reinterpret_cast<void *>(page), end - page, MADV_HUGEPAGE);
#endif
}
