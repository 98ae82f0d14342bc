// Full gates on CPU cores, one for each entry of the state: the recurrence itself, a few rows of the state in registers.

#include "problem.h"

// One head of one sequence and at most NV vectors of its value channels.
template <class F, int NV> struct Rows {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = 64 / sizeof(F), W = NV * L, R = 4;  // R rows of the state at a time

  const Problem<F> &p;
  const Int n, h, first, width, rows;  // first value channel, channels in use ≤ W, K rounded up to a multiple of 4
  std::vector<F> q, k;                 // [C, rows]: scaled queries, keys
  std::vector<F> sum_q, sum_k;         // [C, rows]: gradients of a chunk
  std::vector<Vec> v, keep, change;    // [C, NV], gates [C, rows, NV]
  std::vector<Vec> o, S, rest;         // [C, NV], [rows, NV]
  const Head at_q, at_k, at_v;

  Rows(const Problem<F> &p, Int n, Int h, Int first)
      : p(p), n(n), h(h), first(first), width(std::min(W, p.V - first)), rows((p.K + 3) / 4 * 4), q(C * rows), k(C * rows),
        sum_q(C * rows), sum_k(C * rows), v(C * NV), keep(C * rows * NV), change(C * rows * NV), o(C * NV), S(rows * NV),
        rest(rows * NV), at_q{p.H, h}, at_k{p.hk, h / (p.H / p.hk)}, at_v{p.hv, h / (p.H / p.hv)} {}

  static F *scalars(std::vector<Vec> &x) { return reinterpret_cast<F *>(x.data()); }
  Vec take(const F *x, int j) const { return load(x + j * L, std::clamp<Int>(width - j * L, 0, L)); }
  void put(Vec y, F *x, int j) const { store<F>(y, x + j * L, std::clamp<Int>(width - j * L, 0, L)); }

  void load_state(const F *x, std::vector<Vec> &S) const {
    std::fill(S.begin(), S.end(), Vec{});
    for (Int i = 0; x && i < p.K; ++i)
      for (int j = 0; j < NV; ++j) S[i * NV + j] = take(x + i * p.V + first, j);
  }
  void store_state(const std::vector<Vec> &S, F *x) const {
    for (Int i = 0; i < p.K; ++i)
      for (int j = 0; j < NV; ++j) put(S[i * NV + j], x + i * p.V + first, j);
  }

  void load_chunk(Int t0, Int t1) {
    for (Int t = t0; t < t1; ++t) {
      const Int c = t - t0;
      for (Int i = 0; i < p.K; ++i) q[c * rows + i] = p.q[at_q(t) * p.K + i] * p.scale, k[c * rows + i] = p.k[at_k(t) * p.K + i];
      for (int j = 0; j < NV; ++j) v[c * NV + j] = take(p.v + at_v(t) * p.V + first, j);
      for (Int i = 0; i < p.K; ++i)
        for (int j = 0; j < NV; ++j) {
          const Int at = (c * rows + i) * NV + j;
          decay<F>(take(p.G + (at_q(t) * p.K + i) * p.V + first, j), keep[at], change[at]);
        }
    }
  }

  void forward() {
    const Int state = (n * p.H + h) * p.K * p.V;
    load_state(p.initial ? p.initial + state : nullptr, S);
    Int chunk = 0;
    for (Int t0 = p.offsets[n]; t0 < p.offsets[n + 1]; t0 += C, ++chunk) {
      const Int t1 = std::min(t0 + C, p.offsets[n + 1]);
      if (p.checkpoints && chunk % p.span == 0)
        store_state(S, p.checkpoints + ((p.span_offsets[n] + chunk / p.span) * p.H + h) * p.K * p.V);
      load_chunk(t0, t1);
      std::fill(o.begin(), o.end(), Vec{});
      for (Int i = 0; i < rows; i += R) forward_rows(i, t1 - t0);
      for (Int t = t0; t < t1; ++t)
        for (int j = 0; j < NV; ++j) put(o[(t - t0) * NV + j], p.o + at_q(t) * p.V + first, j);
    }
    store_state(S, p.final + state);
  }

  void forward_rows(Int i, Int steps) {
    Vec s[R][NV], e[R][NV];
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < NV; ++j) s[r][j] = S[(i + r) * NV + j], e[r][j] = rest[(i + r) * NV + j];
    for (Int c = 0; c < steps; ++c)
      for (int r = 0; r < R; ++r) {
        const Int row = c * rows + i + r;
        for (int j = 0; j < NV; ++j) {
          add<F>(s[r][j], e[r][j], keep[row * NV + j], change[row * NV + j], k[row] * v[c * NV + j]);
          o[c * NV + j] += q[row] * s[r][j];
        }
      }
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < NV; ++j) S[(i + r) * NV + j] = s[r][j], rest[(i + r) * NV + j] = e[r][j];
  }

  void backward() {
    const Int state = (n * p.H + h) * p.K * p.V, begin = p.offsets[n], end = p.offsets[n + 1];
    std::vector<Vec> dS(rows * NV), d_rest(rows * NV), d_o(C * NV), d_v(C * NV);
    load_state(p.d_final ? p.d_final + state : nullptr, dS);
    std::vector<std::vector<Vec>> starts(p.span);  // the states before the chunks of a span, computed again
    for (Int c = (end - begin + C - 1) / C - 1, last = c; c >= 0; --c) {
      const Int within = c % p.span;
      if (c == last || within == p.span - 1) {
        load_state(p.checkpoints + ((p.span_offsets[n] + c / p.span) * p.H + h) * p.K * p.V, S);
        std::fill(rest.begin(), rest.end(), Vec{});
        for (Int i = 0; i <= within; ++i) {
          starts[i] = S;
          if (i == within) break;
          load_chunk(begin + (c - within + i) * C, begin + (c - within + i + 1) * C);
          for (Int r = 0; r < rows; r += R) forward_rows(r, C);
        }
      }
      S = starts[within];
      const Int t0 = begin + c * C, t1 = std::min(t0 + C, end);
      load_chunk(t0, t1);
      for (Int t = t0; t < t1; ++t)
        for (int j = 0; j < NV; ++j) d_o[(t - t0) * NV + j] = take(p.d_o + at_q(t) * p.V + first, j);
      std::fill(d_v.begin(), d_v.end(), Vec{});
      for (Int i = 0; i < rows; i += R) backward_rows(i, t0, t1 - t0, dS.data(), d_rest.data(), d_o.data(), d_v.data());
      for (Int t = t0; t < t1; ++t)
        for (int j = 0; j < NV; ++j) put(d_v[(t - t0) * NV + j], p.d_v + at_q(t) * p.V + first, j);
      add_rows(t0, t1 - t0);
    }
    if (p.d_initial) store_state(dS, p.d_initial + state);
  }

  void backward_rows(Int i, Int t0, Int steps, Vec *dS, Vec *d_rest, const Vec *d_o, Vec *d_v) {
    Vec states[C + 1][R][NV], d_q[R][C] = {}, d_k[R][C] = {};
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < NV; ++j) {
        Vec s = S[(i + r) * NV + j], e = {};
        states[0][r][j] = s;
        for (Int c = 0; c < steps; ++c) {
          const Int row = c * rows + i + r;
          add<F>(s, e, keep[row * NV + j], change[row * NV + j], k[row] * v[c * NV + j]);
          states[c + 1][r][j] = s;
        }
      }
    for (Int c = steps - 1; c >= 0; --c)
      for (int r = 0; r < R; ++r) {
        const Int row = c * rows + i + r;
        for (int j = 0; j < NV; ++j) {
          Vec &g = dS[(i + r) * NV + j], &e = d_rest[(i + r) * NV + j];
          add<F>(g, e, Vec{} + F(1), Vec{}, q[row] * d_o[c * NV + j]);
          d_q[r][c] += states[c + 1][r][j] * d_o[c * NV + j];
          d_k[r][c] += g * v[c * NV + j];
          d_v[c * NV + j] += k[row] * g;
          add<F>(g, e, keep[row * NV + j], change[row * NV + j], Vec{});
          if (i + r < p.K) put(g * states[c][r][j], p.d_G + (at_q(t0 + c) * p.K + i + r) * p.V + first, j);
        }
      }
    for (int r = 0; r < R; ++r)
      for (Int c = 0; c < steps; c += L) {
        const auto sums = [&](const Vec *d) { return row_sums<F>([&](int l) { return d[c + l]; }); };
        const Vec to_q = sums(d_q[r]) * p.scale, to_k = sums(d_k[r]);
        for (Int l = 0; l < L; ++l) sum_q[(c + l) * rows + i + r] = to_q[l], sum_k[(c + l) * rows + i + r] = to_k[l];
      }
  }

  // The tiles of value channels add up their shares of the gradients of q and k.
  void add_rows(Int t0, Int steps) {
    for (Int c = 0; c < steps; ++c)
      for (Int i = 0; i < p.K; ++i) {
        const Int to = at_q(t0 + c) * p.K + i;
        p.d_q[to] = sum_q[c * rows + i] + (first ? p.d_q[to] : F(0));
        p.d_k[to] = sum_k[c * rows + i] + (first ? p.d_k[to] : F(0));
      }
  }
};

template <class F, int NV> static void full(const Problem<F> &p, bool backward) {
  parallel(p.N * p.H, p.threads, [&] {
    return [&](Int job) {
      for (Int first = 0; first < p.V; first += Rows<F, NV>::W) {
        Rows<F, NV> rows(p, job / p.H, job % p.H, first);
        backward ? rows.backward() : rows.forward();
      }
    };
  });
}

template <class F> static void full(const Problem<F> &p, bool backward) {
  constexpr Int L = 64 / sizeof(F);
  p.V > 2 * L ? full<F, 4>(p, backward) : p.V > L ? full<F, 2>(p, backward) : full<F, 1>(p, backward);
}

extern "C" {
void full_float(const Problem<float> *p, int backward) { full(*p, backward); }
void full_double(const Problem<double> *p, int backward) { full(*p, backward); }
}
