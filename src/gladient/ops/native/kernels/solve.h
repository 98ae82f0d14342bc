// The triangle inside a chunk: what a token writes of the state depends on what the tokens before it wrote.

#pragma once

#include "tiles.h"

// y_t -= (x_t · M) weight_t + Σ_s A_st y_s over the tokens s before t (after t), whose y are done; with Two, also + Σ_s B_st z_s.
// What lies on the diagonal and beyond is never touched.
template <Part P, bool Two = false, class F, class Vec>
static void solve(Vec *y, Int n, const F *A, const Vec *x, Int step, const Vec *M, Int count, const F *weight, Int steps,
                  const F *B = nullptr, const Vec *z = nullptr) {
  const auto at = [](Int s, Int t) INLINE { return P == EARLIER ? s * C + t : t * C + s; };
  columns<SLIM>(n, [&](auto width, Int j0) {
    constexpr int J = width, R = ROWS<J>;
    Vec *to = y + j0;
    for (Int i = 0; i < steps; i += R) {
      const Int t = P == EARLIER ? i : steps - R - i;
      Vec sum[R][J] = {};
      add_products<ALONG>(sum, scalars<F>(x) + t * step, step, M + j0, n, count);
      for (int r = 0; r < R && count; ++r)
        for (int j = 0; j < J; ++j) sum[r][j] *= weight[t + r];
      if constexpr (P == EARLIER) add_products<ACROSS>(sum, A + t, C, to, n, t);
      else add_products<ALONG>(sum, A + t * C + t + R, C, to + (t + R) * n, n, steps - t - R);
      if constexpr (Two) add_products<ACROSS>(sum, B + t, C, z + j0, n, t);
#pragma GCC unroll 8
      for (int a = 0; a < R; ++a) {
        const int r = P == EARLIER ? a : R - 1 - a;
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) sum[r][j] = to[(t + r) * n + j] - sum[r][j];
#pragma GCC unroll 8
        for (int b = 0; b < a; ++b) {
          const int s = P == EARLIER ? b : R - 1 - b;
#pragma GCC unroll 4
          for (int j = 0; j < J; ++j) sum[r][j] -= A[at(t + s, t + r)] * sum[s][j];
          if constexpr (Two)
            for (int j = 0; j < J; ++j) sum[r][j] -= B[at(t + s, t + r)] * z[(t + s) * n + j0 + j];
        }
#pragma GCC unroll 4
        for (int j = 0; j < J; ++j) to[(t + r) * n + j] = sum[r][j];
      }
    }
  });
}
