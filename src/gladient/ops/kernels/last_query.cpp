// The last query's output alone, o = Σ_t ω_t (q·k_t) v_t with the token weights ω of the gates, and its gradients.
//
// Tokens run from the last to the first, so that the logarithm of a weight is a running sum of log gates. The gradient
// of a log gate is an exclusive prefix sum over tokens, taken at the end. All rows have T tokens; heads as in scan.cpp.

#include "simd.h"

template <class F> struct LastQuery {
  Int N, T, H, hk, hv, hg, hgk, hgv, K, V, threads;
  const F *q, *k, *v, *g, *gk, *gv;        // q [N, H, K], the others [N, T, heads, channels]; gates null where absent
  F *o;                                    // [N, H, V]; null in the backward pass
  const F *d_o;
  F *d_q, *d_k, *d_v, *d_g, *d_gk, *d_gv;  // shaped like what they belong to; null where not asked for
};

// Replaces x [T, width] by its exclusive prefix sums over T.
template <class F> static void prefix_sums(F *x, Int T, Int width) {
  std::vector<F> sum(width, F(0));
  for (Int t = 0; t < T; ++t)
    for (Int j = 0; j < width; ++j) {
      const F here = x[t * width + j];
      x[t * width + j] = sum[j];
      sum[j] += here;
    }
}

// Lanes are the channels of one head; sixteen tokens (eight in double) at a time.
template <class F, int NK, int NV> static void one_head(const LastQuery<F> &p, Int n, Int h) {
  using Vec = typename Vector<F>::type;
  constexpr Int L = 64 / sizeof(F);
  const auto place = [&](Int heads) {  // index of [n, t, head]
    return [start = n * p.T, heads, own = h / (p.H / heads)](Int t) { return (start + t) * heads + own; };
  };
  const auto at_k = place(p.hk), at_v = place(p.hv), at_g = place(p.hg), at_gk = place(p.hgk), at_gv = place(p.hgv);
  const auto lanes = [&](Int channels, int a) { return std::clamp<Int>(channels - a * L, 0, L); };
  const auto adds = [&](Int heads) { return h % (p.H / heads) != 0; };  // the first head of a group writes, others add
  const bool add_k = adds(p.hk), add_v = adds(p.hv), add_g = adds(p.hg), add_gk = adds(p.hgk), add_gv = adds(p.hgv);
  // One row of a gradient. Rows that lie side by side go through a buffer, as whole vectors whose surplus the next row
  // overwrites: masked stores are slow.
  const auto put = [&](Vec y, F *buffer, F *x, Int c, int a, Int channels, Int heads, bool add) {
    if (heads > 1 || add) store<F>(add ? y + load(x + a * L, lanes(channels, a)) : y, x + a * L, lanes(channels, a));
    else if (a * L < channels) std::memcpy(buffer + c * channels + a * L, &y, sizeof(Vec));
  };
  F row_v[L * NV * L + L], row_gv[L * NV * L + L], row_k[L * NK * L + L], row_gk[L * NK * L + L];
  const auto flush = [&](F *x, const F *buffer, Int m, Int channels, Int heads, bool add) {
    if (x && heads == 1 && !add) std::memcpy(x, buffer, m * channels * sizeof(F));
  };
  Vec q[NK], up[NV] = {}, o[NV] = {}, d_q[NK] = {}, sum_k[NK] = {}, sum_v[NV] = {};
  for (int a = 0; a < NK; ++a) q[a] = load(p.q + (n * p.H + h) * p.K + a * L, lanes(p.K, a));
  for (int a = 0; a < NV && p.d_o; ++a) up[a] = load(p.d_o + (n * p.H + h) * p.V + a * L, lanes(p.V, a));
  F sum = 0;
  for (Int t1 = p.T; t1 > 0; t1 -= L) {
    const Int t0 = std::max<Int>(t1 - L, 0), m = t1 - t0;
    Vec k[L][NK], v[L][NV], wk[L][NK], wv[L][NV], products[L], reads[L];
    alignas(64) F sums[L] = {};
    for (Int c = 0; c < L; ++c) products[c] = reads[c] = Vec{};
    for (Int c = m - 1; c >= 0; --c) {
      const F *kt = p.k + at_k(t0 + c) * p.K, *vt = p.v + at_v(t0 + c) * p.V;
      sums[c] = sum;
      if (p.g) sum += p.g[at_g(t0 + c)];
      for (int a = 0; a < NK; ++a) {
        k[c][a] = load(kt + a * L, lanes(p.K, a));
        if (p.gk) {
          wk[c][a] = exponential<F>(sum_k[a]);
          sum_k[a] += load(p.gk + at_gk(t0 + c) * p.K + a * L, lanes(p.K, a));
          products[c] += q[a] * (k[c][a] * wk[c][a]);
        } else {
          products[c] += q[a] * k[c][a];
        }
      }
      for (int a = 0; a < NV; ++a) {
        v[c][a] = load(vt + a * L, lanes(p.V, a));
        if (p.gv) {
          wv[c][a] = exponential<F>(sum_v[a]);
          sum_v[a] += load(p.gv + at_gv(t0 + c) * p.V + a * L, lanes(p.V, a));
          if (p.d_o) reads[c] += up[a] * (v[c][a] * wv[c][a]);
        } else if (p.d_o) {
          reads[c] += up[a] * v[c][a];
        }
      }
    }
    const Vec w = exponential<F>(load(sums, L));
    const Vec s = p.g ? row_sums(products) * w : row_sums(products);
    if (!p.d_o) {
      for (Int c = 0; c < m; ++c)
        for (int a = 0; a < NV; ++a) o[a] += s[c] * (p.gv ? v[c][a] * wv[c][a] : v[c][a]);
      continue;
    }
    const Vec read = row_sums(reads), back = p.g ? read * w : read, each = s * read;
    for (Int c = 0; c < m; ++c) {
      const Int t = t0 + c;
      if (p.d_g) {
        F *to = p.d_g + at_g(t);
        *to = add_g ? *to + each[c] : each[c];
      }
      for (int a = 0; a < NV && (p.d_v || p.d_gv); ++a) {
        const Vec d = s[c] * (p.gv ? wv[c][a] * up[a] : up[a]);
        if (p.d_v) put(d, row_v, p.d_v + at_v(t) * p.V, c, a, p.V, p.hv, add_v);
        if (p.d_gv) put(d * v[c][a], row_gv, p.d_gv + at_gv(t) * p.V, c, a, p.V, p.hgv, add_gv);
      }
      for (int a = 0; a < NK; ++a) {
        d_q[a] += back[c] * (p.gk ? k[c][a] * wk[c][a] : k[c][a]);
        const Vec d = back[c] * (p.gk ? wk[c][a] * q[a] : q[a]);
        if (p.d_k) put(d, row_k, p.d_k + at_k(t) * p.K, c, a, p.K, p.hk, add_k);
        if (p.d_gk) put(d * k[c][a], row_gk, p.d_gk + at_gk(t) * p.K, c, a, p.K, p.hgk, add_gk);
      }
    }
    flush(p.d_v ? p.d_v + at_v(t0) * p.V : nullptr, row_v, m, p.V, p.hv, add_v);
    flush(p.d_gv ? p.d_gv + at_gv(t0) * p.V : nullptr, row_gv, m, p.V, p.hgv, add_gv);
    flush(p.d_k ? p.d_k + at_k(t0) * p.K : nullptr, row_k, m, p.K, p.hk, add_k);
    flush(p.d_gk ? p.d_gk + at_gk(t0) * p.K : nullptr, row_gk, m, p.K, p.hgk, add_gk);
  }
  for (int a = 0; a < NV && p.o; ++a) store<F>(o[a], p.o + (n * p.H + h) * p.V + a * L, lanes(p.V, a));
  for (int a = 0; a < NK && p.d_q; ++a) store<F>(d_q[a], p.d_q + (n * p.H + h) * p.K + a * L, lanes(p.K, a));
}

// Lanes are the value channels of all heads, for keys that all heads share: gates are value gates [N, T, H, V].
template <class F> static void shared_keys(const LastQuery<F> &p, Int n) {
  using Vec = typename Vector<F>::type;
  constexpr Int L = 64 / sizeof(F);
  const Int width = p.H * p.V;
  std::vector<Vec> q(p.K), d_q(p.K);
  for (Int first = 0; first < width; first += L) {
    const Int count = std::min(L, width - first);
    for (Int i = 0; i < p.K; ++i) {
      d_q[i] = Vec{};
      for (Int l = 0; l < L; ++l) q[i][l] = l < count ? p.q[(n * p.H + (first + l) / p.V) * p.K + i] : F(0);
    }
    const Vec up = p.d_o ? load(p.d_o + n * width + first, count) : Vec{};
    Vec sum = {}, o = {};
    for (Int t = p.T - 1; t >= 0; --t) {
      const Int at = (n * p.T + t) * width + first;
      const F *k = p.k + (n * p.T + t) * p.K;
      Vec s = {}, w = {};
      for (Int i = 0; i < p.K; ++i) s += k[i] * q[i];
      if (p.gv) {
        w = exponential<F>(sum);
        sum += load(p.gv + at, count);
        s *= w;
      }
      const Vec v = load(p.v + at, count);
      if (!p.d_o) {
        o += s * v;
        continue;
      }
      const Vec d = s * up;
      if (p.d_v) store<F>(d, p.d_v + at, count);
      if (p.d_gv) store<F>(d * v, p.d_gv + at, count);
      const Vec back = p.gv ? up * v * w : up * v;
      for (Int i = 0; i < p.K; ++i) d_q[i] += k[i] * back;
    }
    if (p.o) store<F>(o, p.o + n * width + first, count);
    for (Int i = 0; i < p.K && p.d_q; ++i)
      for (Int l = 0; l < count; ++l) {
        F *to = p.d_q + (n * p.H + (first + l) / p.V) * p.K + i;
        *to = (first + l) % p.V ? *to + d_q[i][l] : d_q[i][l];
      }
  }
}

template <class F> static void last_query(const LastQuery<F> &p) {
  constexpr Int L = 64 / sizeof(F);
  const Int NK = (p.K + L - 1) / L, NV = (p.V + L - 1) / L;
  const bool shared = p.hk == 1 && p.H > 1 && p.V < L && p.hv == p.H && (!p.gv || p.hgv == p.H) && !p.g && !p.gk && !p.d_k;
  const auto row = [&](Int n) {
    if (shared) shared_keys(p, n);
    for (Int h = 0; h < p.H && !shared; ++h) {
      if (NK <= 1 && NV <= 1) one_head<F, 1, 1>(p, n, h);
      else if (NK <= 2 && NV <= 2) one_head<F, 2, 2>(p, n, h);
      else if (NK <= 4 && NV <= 4) one_head<F, 4, 4>(p, n, h);
      else one_head<F, 8, 8>(p, n, h);
    }
    if (p.d_g) prefix_sums(p.d_g + n * p.T * p.hg, p.T, p.hg);
    if (p.d_gk) prefix_sums(p.d_gk + n * p.T * p.hgk * p.K, p.T, p.hgk * p.K);
    if (p.d_gv) prefix_sums(p.d_gv + n * p.T * p.hgv * p.V, p.T, p.hgv * p.V);
  };
  parallel(p.N, p.threads, [&] { return row; });
}

extern "C" {
void last_query_float(const LastQuery<float> *p) { last_query(*p); }
void last_query_double(const LastQuery<double> *p) { last_query(*p); }
}
