// Products of small matrices in tiles of registers: what scan.cpp does most of the time.

#pragma once

#include "problem.h"

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int WIDE = 4;  // vectors of columns in a tile: 32 registers hold 16 sums and what they take in,
#else
constexpr int WIDE = 2;  // 16 registers hold 8
#endif
constexpr int SLIM = 2;  // tall tiles read a matrix fewer times: faster for states, which overflow the nearest cache
template <int J> constexpr int ROWS = J == 4 ? 4 : J == 2 && WIDE == 2 ? 4 : 8;  // rows of a tile J vectors wide
constexpr Int TALL = 8;                                                          // a multiple of the rows of every tile

template <class F> static F *scalars(typename Vector<F>::type *x) { return reinterpret_cast<F *>(x); }
template <class F> static const F *scalars(const typename Vector<F>::type *x) { return reinterpret_cast<const F *>(x); }

// run(J, j) for tiles of J vectors that cover n.
template <int Most = WIDE, class Run> INLINE static inline void columns(Int n, Run run) {
  Int j = 0;
  if constexpr (Most >= 4)
    for (; j + 4 <= n; j += 4) run(std::integral_constant<int, 4>{}, j);
  if constexpr (Most >= 2)
    for (; j + 2 <= n; j += 2) run(std::integral_constant<int, 2>{}, j);
  for (; j < n; ++j) run(std::integral_constant<int, 1>{}, j);
}

// sum[r] += Σ_{i < count} x[r, i] M[i]; x at r * step + i or, where its rows lie across, at i * step + r.
enum Layout { ALONG, ACROSS };
template <Layout X, class F, int R, int J, class Vec>
INLINE static inline void add_products(Vec (&sum)[R][J], const F *x, Int step, const Vec *M, Int m, Int count) {
  for (Int i = 0; i < count;) {
    Vec part[R][J] = {};  // the rounding of n products grows as 16 + n / 16, not as n
    for (const Int end = std::min(i + 16, count); i < end; ++i) {
      Vec y[J];
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) y[j] = M[i * m + j], in_register(y[j]);
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) part[r][j] += x[X == ALONG ? r * step + i : i * step + r] * y[j];
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j) sum[r][j] += part[r][j];
  }
}

// Of the tokens of a chunk, each takes from the earlier ones and itself, or from itself and the later ones.
enum Part { EARLIER, LATER };

// sum[r] += Σ_s pairs[s, t + r] y[s], s ≤ t + r < C; or Σ_u pairs[t + r, u] y[u], t + r ≤ u < steps. What lies on the
// other side is never touched: it may be infinite, and 0 · ∞ is not 0.
template <Part P, class F, int R, int J, class Vec>
INLINE static inline void add_pairs(Vec (&sum)[R][J], const F *pairs, const Vec *y, Int n, Int t, Int steps) {
  if constexpr (P == EARLIER) add_products<ACROSS>(sum, pairs + t, C, y, n, t);
  else add_products<ALONG>(sum, pairs + t * C + t + R, C, y + (t + R) * n, n, steps - t - R);
  Vec part[R][J] = {};
#pragma GCC unroll 8
  for (int i = 0; i < R; ++i)
#pragma GCC unroll 8
    for (int r = P == EARLIER ? i : 0; r < (P == EARLIER ? R : i + 1); ++r)
#pragma GCC unroll 4
      for (int j = 0; j < J; ++j)
        part[r][j] += pairs[P == EARLIER ? (t + i) * C + t + r : (t + r) * C + t + i] * y[(t + i) * n + j];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < J; ++j) sum[r][j] += part[r][j];
}

// y [columns * L, rows / L] ← x [rows, columns] transposed; rows in lanes.
template <class F> static void transpose(const typename Vector<F>::type *x, Int rows, Int columns, typename Vector<F>::type *y) {
  constexpr Int L = LANES<F>;
  for (Int i = 0; i < rows / L; ++i)
    for (Int j = 0; j < columns; ++j) {
      typename Vector<F>::type square[L];
      for (Int l = 0; l < L; ++l) square[l] = x[(i * L + l) * columns + j];
      flip<F>(square);
      for (Int l = 0; l < L; ++l) y[(j * L + l) * (rows / L) + i] = square[l];
    }
}
