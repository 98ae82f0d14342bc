// What the kernels share: vectors as wide as the machine's registers, sums over lanes, the exponential, and the structs
// that Python fills.

#pragma once

#include <cmath>

#if defined(__AVX512F__) || defined(__AVX2__)
#include <immintrin.h>
#endif

#include "machine.h"

// Fields of a struct, and their names for Python: q whole numbers, d reals, Q addresses.
#define INTEGER_FIELD(name) Int name;
#define REAL_FIELD(name) double name;
#define INTEGERS_FIELD(name) const Int *name;
#define INPUT_FIELD(name) const F *name;
#define OUTPUT_FIELD(name) F *name;
#define INTEGER_NAME(name) #name ":q "
#define REAL_NAME(name) #name ":d "
#define ADDRESS_NAME(name) #name ":Q "
#define NAMES(FIELDS) FIELDS(INTEGER_NAME, REAL_NAME, ADDRESS_NAME, ADDRESS_NAME, ADDRESS_NAME)

#define INLINE __attribute__((always_inline))  // where vectors would travel through memory otherwise

#if defined(__AVX512F__)
constexpr int BYTES = 64;
#elif defined(__AVX__)
constexpr int BYTES = 32;
#else
constexpr int BYTES = 16;  // SSE, NEON
#endif
template <class F> struct Vector { typedef F type __attribute__((vector_size(BYTES))); };
template <class F> constexpr int LANES = BYTES / sizeof(F);
template <class F> using Lanes = std::make_integer_sequence<int, LANES<F>>;

// Has x in a register from here on: compilers may otherwise read it again from memory for each of several products, which then
// wait for loads.
template <class Vec> INLINE static inline void in_register(Vec &x) {
#if defined(__x86_64__)
  asm("" : "+v"(x));
#elif defined(__aarch64__)
  asm("" : "+w"(x));
#endif
}

// The first `count` lanes from memory, zeros behind them; and back.
template <class F> INLINE static inline typename Vector<F>::type load(const F *x, Int count) {
  typename Vector<F>::type y = {};
  if (count == LANES<F>) std::memcpy(&y, x, BYTES);
  else for (Int l = 0; l < count; ++l) y[l] = x[l];
  return y;
}
template <class F> INLINE static inline void store(typename Vector<F>::type y, F *x, Int count) {
  if (count == LANES<F>) std::memcpy(x, &y, BYTES);
  else for (Int l = 0; l < count; ++l) x[l] = y[l];
}
#if defined(__AVX512F__)
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
#elif defined(__AVX2__)
// In pieces: AMD's CPUs take tens of cycles for a masked store.
template <> inline void store(Vector<float>::type y, float *x, Int count) {
  if (count == LANES<float>) return _mm256_storeu_ps(x, (__m256)y);
  __m128 rest = _mm256_castps256_ps128((__m256)y);
  if (count & 4) _mm_storeu_ps(x, rest), x += 4, rest = _mm256_extractf128_ps((__m256)y, 1);
  if (count & 2) _mm_storel_pi(reinterpret_cast<__m64 *>(x), rest), x += 2, rest = _mm_movehl_ps(rest, rest);
  if (count & 1) _mm_store_ss(x, rest);
}
template <> inline void store(Vector<double>::type y, double *x, Int count) {
  if (count == LANES<double>) return _mm256_storeu_pd(x, (__m256d)y);
  __m128d rest = _mm256_castpd256_pd128((__m256d)y);
  if (count & 2) _mm_storeu_pd(x, rest), x += 2, rest = _mm256_extractf128_pd((__m256d)y, 1);
  if (count & 1) _mm_store_sd(x, rest);
}
#if !defined(__SANITIZE_ADDRESS__)  // plain loads are what the sanitizer sees
static inline __m256i first_lanes(Int count, int bytes) {
  static const int32_t mask[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
  return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(mask + 8 - count * bytes / 4));
}
template <> inline Vector<float>::type load(const float *x, Int count) {
  if (count == LANES<float>) return (Vector<float>::type)_mm256_loadu_ps(x);
  return (Vector<float>::type)_mm256_maskload_ps(x, first_lanes(count, 4));
}
template <> inline Vector<double>::type load(const double *x, Int count) {
  if (count == LANES<double>) return (Vector<double>::type)_mm256_loadu_pd(x);
  return (Vector<double>::type)_mm256_maskload_pd(x, first_lanes(count, 8));
}
#endif
#endif

// Sums over lanes, row l into lane l, of the first `rows` rows: `half` sums rows that differ in bit D of their number, and
// lanes likewise.
template <class Vec, int D, int... I> INLINE static inline Vec half(Vec a, Vec b, std::integer_sequence<int, I...>) {
  constexpr int L = sizeof...(I);
  return __builtin_shufflevector(a, b, ((I & D) ? I + L : I)...) +
         __builtin_shufflevector(a, b, ((I & D) ? (I ^ D) + L : I ^ D)...);
}
template <class F, int Rows = LANES<F>, class Row>
INLINE static inline typename Vector<F>::type row_sums(Row row, Int rows = LANES<F>, int first = 0) {
  if (first >= rows) return typename Vector<F>::type{};
  if constexpr (Rows == 1) return row(first);
  else {
    const auto a = row_sums<F, Rows / 2>(row, rows, first), b = row_sums<F, Rows / 2>(row, rows, first + Rows / 2);
    return half<typename Vector<F>::type, Rows / 2>(a, b, Lanes<F>());
  }
}

// Lane l of the result is the sum of the lanes from l on, or (D < 0) up to l.
template <int D, class Vec, int... I> INLINE static inline Vec shifted(Vec x, std::integer_sequence<int, I...>) {
  constexpr int L = sizeof...(I);
  return __builtin_shufflevector(x, Vec{}, (I + D >= 0 && I + D < L ? I + D : L)...);
}
template <int D, class F> INLINE static inline typename Vector<F>::type running_sums(typename Vector<F>::type x) {
  if constexpr (D < LANES<F> && -D < LANES<F>) return running_sums<2 * D, F>(x + shifted<D>(x, Lanes<F>()));
  return x;
}

// exp(x) - 1 for |x| ≤ ln(2) / 2; in float a minimax polynomial of degree 7, off by less than 1 unit in the last place
INLINE static inline Vector<float>::type exp_minus_1(Vector<float>::type x) {
  auto p = 1.9875691500e-4f * x + 1.3981999507e-3f;
  p = p * x + 8.3334519073e-3f;
  p = p * x + 4.1665795894e-2f;
  p = p * x + 1.6666665459e-1f;
  p = p * x + 5.0000001201e-1f;
  return p * x * x + x;
}
static inline Vector<double>::type exp_minus_1(Vector<double>::type x) {
  for (int l = 0; l < LANES<double>; ++l) x[l] = std::expm1(x[l]);
  return x;
}

// exp(x); in float it is 0 below x = -87, near where normal numbers end, and infinite above x = 88. With
// n = round(x / ln 2) and r = x - n ln 2, exp(x) = 2^n exp(r). Of the two parts of ln 2 the first has 9 bits, so that
// n times it is exact.
template <class F> INLINE static inline typename Vector<F>::type exponential(typename Vector<F>::type x) {
  for (int l = 0; l < LANES<F>; ++l) x[l] = std::exp(x[l]);
  return x;
}
template <> INLINE inline Vector<float>::type exponential<float>(Vector<float>::type x) {
  using Vec = Vector<float>::type;
  typedef int32_t Integers __attribute__((vector_size(BYTES)));
  const Vec low = Vec{} - 87.0f, high = Vec{} + 88.0f, whole = Vec{} + 12582912.0f;  // 1.5 · 2^23: adding it rounds
  const Vec y = x < low ? low : x > high ? high : x, n = (y * 1.44269504f + whole) - whole;
  const Vec r = (y - n * 0.693359375f) + n * 2.12194440e-4f;
  const Vec power = (Vec)((__builtin_convertvector(n, Integers) + 127) << 23);
  return x < low ? Vec{} : x > high ? Vec{} + INFINITY : (exp_minus_1(r) + 1.0f) * power;
}

// exp(x) = keep + change, keep 0 or 1: near 1 the change holds the digits that the sum would lose. Near is |x| ≤ 0.34,
// just within the ln(2) / 2 = 0.347 for which `exp_minus_1` is made.
template <class F>
INLINE static inline void decay(typename Vector<F>::type x, typename Vector<F>::type &keep, typename Vector<F>::type &change) {
  using Vec = typename Vector<F>::type;
  const Vec low = Vec{} - F(0.34), high = Vec{} + F(0.34), near = x < low ? low : x > high ? high : x;
  keep = near == x ? Vec{} + F(1) : Vec{};
  change = near == x ? exp_minus_1(near) : exponential<F>(x);
}

// sum ← (keep + change) sum + x, where rest takes up what sum rounds off and gives it back. keep · sum is exact, since
// keep is 0 or a power of two. So kept + added is rounded once, and (kept - sum) + added is what that took: exactly
// where |kept| ≥ |added|, which is where it matters (Dekker's sum).
template <class F>
INLINE static inline void add(typename Vector<F>::type &sum, typename Vector<F>::type &rest, typename Vector<F>::type keep,
                              typename Vector<F>::type change, typename Vector<F>::type x) {
  const auto kept = keep * sum, added = x + change * sum + (keep + change) * rest;
  sum = kept + added;
  rest = (kept - sum) + added;
}

// A square of L vectors transposed in place: each round interleaves its halves, which turns the bits of the index by one.
template <class Vec, int... I> INLINE static inline void interleave(Vec a, Vec b, Vec *y, std::integer_sequence<int, I...>) {
  constexpr int L = sizeof...(I);
  y[0] = __builtin_shufflevector(a, b, (I % 2 * L + I / 2)...);
  y[1] = __builtin_shufflevector(a, b, (I % 2 * L + L / 2 + I / 2)...);
}
template <class F> INLINE static inline void flip(typename Vector<F>::type *x) {
  constexpr int L = LANES<F>;
  typename Vector<F>::type y[L];
  for (int round = 1; round < L; round *= 2) {
    for (int i = 0; i < L / 2; ++i) interleave(x[i], x[i + L / 2], y + 2 * i, Lanes<F>());
    std::copy(y, y + L, x);
  }
}
