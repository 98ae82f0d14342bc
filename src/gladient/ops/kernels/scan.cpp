// Gated linear attention on CPU cores: one pass over the tokens, the state in registers, one chunk of tokens in cache.
//
// Tokens of all sequences lie one after the other: q [M, H, K], v [M, hv, V] …; sequence n holds the tokens
// offsets[n] … offsets[n + 1]. Head h of q uses head h / (H / hk) of k. Gates come as logarithms, null where absent.
// Every function exists for float and double; Python calls them through ctypes (native.py).

#include "simd.h"

template <class F> struct Problem {
  Int N, H, hk, hv, hg, hgk, hgv, K, V, span, threads;           // a state is kept every `span` chunks
  F scale;
  const Int *offsets, *span_offsets;                             // [N + 1] in tokens and in spans
  const F *q, *k, *v, *g, *gk, *gv, *G, *initial;
  F *o, *final, *checkpoints;                                    // checkpoints [spans, H, K, V]: states before them
  const F *d_o, *d_final;
  F *d_q, *d_k, *d_v, *d_g, *d_gk, *d_gv, *d_G, *d_initial;      // all with H heads
};

constexpr Int C = 16;  // tokens in a chunk

enum Gate { NONE, SCALAR, KEY, COLUMN, FULL };  // COLUMN and FULL come with key gates, which may be all 1

// One head of one sequence and at most NV vectors of its value channels.
template <class F, int NV, Gate gate> struct Lane {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = 64 / sizeof(F), W = NV * L, R = 4;  // R rows of the state at a time

  struct Head {
    Int heads, own;
    Int operator()(Int t) const { return t * heads + own; }  // index of [t, head]
  };
  const Problem<F> &p;
  const Int n, h, first, width, rows;  // first value channel, channels in use ≤ W, K rounded up to a multiple of 4
  std::vector<F> q, k, a;              // [C, rows]: scaled queries, keys, key gates
  std::vector<F> sum_q, sum_k, sum_a;  // [C, rows]: gradients of a chunk
  std::vector<Vec> v, b, full;         // [C, NV], value gates [C, NV], full gates [C, rows, NV]
  std::vector<Vec> o, S;               // [C, NV], [rows, NV]
  const Head at_q, at_k, at_v, at_g, at_gk, at_gv;

  Lane(const Problem<F> &p, Int n, Int h, Int first)
      : p(p), n(n), h(h), first(first), width(std::min(W, p.V - first)), rows((p.K + 3) / 4 * 4), q(C * rows),
        k(C * rows), a(C * rows, F(1)), sum_q(C * rows), sum_k(C * rows), sum_a(C * rows), v(C * NV), b(gate == COLUMN ? C * NV : 0),
        full(gate == FULL ? C * rows * NV : 0), o(C * NV), S(rows * NV),
        at_q(head(p.H)), at_k(head(p.hk)), at_v(head(p.hv)), at_g(head(p.hg)), at_gk(head(p.hgk)), at_gv(head(p.hgv)) {}

  static F *scalars(std::vector<Vec> &x) { return reinterpret_cast<F *>(x.data()); }
  Head head(Int heads) const { return {heads, h / (p.H / heads)}; }

  void load_state(const F *x, std::vector<Vec> &S) {
    std::fill(S.begin(), S.end(), Vec{});
    for (Int i = 0; x && i < p.K; ++i) std::memcpy(scalars(S) + i * W, x + i * p.V + first, width * sizeof(F));
  }
  void store_state(std::vector<Vec> &S, F *x) {
    for (Int i = 0; i < p.K; ++i) std::memcpy(x + i * p.V + first, scalars(S) + i * W, width * sizeof(F));
  }

  void load(Int t0, Int t1) {
    for (Int t = t0; t < t1; ++t) {
      const Int c = t - t0;
      const F *qt = p.q + at_q(t) * p.K, *kt = p.k + at_k(t) * p.K;
      for (Int i = 0; i < p.K; ++i) q[c * rows + i] = qt[i] * p.scale, k[c * rows + i] = kt[i];
      std::memcpy(scalars(v) + c * W, p.v + at_v(t) * p.V + first, width * sizeof(F));
      const F g = p.g ? p.g[at_g(t)] : F(0);
      if (p.gk) {
        const F *gk = p.gk + at_gk(t) * p.K;
        for (Int i = 0; i < p.K; ++i) a[c * rows + i] = exp_(g + gk[i]);
      } else if (p.g) {
        std::fill_n(a.begin() + c * rows, p.K, exp_(g));
      }
      if (gate == COLUMN) exponentials(p.gv + at_gv(t) * p.V + first, scalars(b) + c * W);
      if (gate == FULL)
        for (Int i = 0; i < p.K; ++i)
          exponentials(p.G + (at_q(t) * p.K + i) * p.V + first, scalars(full) + (c * rows + i) * W);
    }
  }
  void exponentials(const F *x, F *y) const {
    for (Int j = 0; j < width; ++j) y[j] = exp_(x[j]);
  }

  // The gate of state entry (i, vector j) at token c of the chunk, applied to x; ac is the key gate there.
  inline Vec gated(Vec x, F ac, const Vec *b, const Vec *full, Int c, Int i, Int j) const {
    if (gate != NONE) x *= ac;
    if (gate == COLUMN) x *= b[c * NV + j];
    if (gate == FULL) x *= full[(c * rows + i) * NV + j];
    return x;
  }

  void forward() {
    const Int state = (n * p.H + h) * p.K * p.V;
    load_state(p.initial ? p.initial + state : nullptr, S);
    Int chunk = 0;
    for (Int t0 = p.offsets[n]; t0 < p.offsets[n + 1]; t0 += C, ++chunk) {
      const Int t1 = std::min(t0 + C, p.offsets[n + 1]);
      if (p.checkpoints && chunk % p.span == 0)
        store_state(S, p.checkpoints + ((p.span_offsets[n] + chunk / p.span) * p.H + h) * p.K * p.V);
      load(t0, t1);
      std::fill(o.begin(), o.end(), Vec{});
      for (Int i = 0; i < rows; i += 4) forward_rows(i, t1 - t0);
      for (Int t = t0; t < t1; ++t)
        std::memcpy(p.o + at_q(t) * p.V + first, scalars(o) + (t - t0) * W, width * sizeof(F));
    }
    store_state(S, p.final + state);
  }

  void forward_rows(Int i, Int steps) {
    const F *__restrict q = this->q.data(), *__restrict k = this->k.data(), *__restrict a = this->a.data();
    const Vec *__restrict v = this->v.data(), *__restrict b = this->b.data(), *__restrict full = this->full.data();
    const Int rows = this->rows;
    Vec *__restrict o = this->o.data(), s[4][NV];
    for (int r = 0; r < 4; ++r)
      for (int j = 0; j < NV; ++j) s[r][j] = S[(i + r) * NV + j];
    for (Int c = 0; c < steps; ++c) {
      Vec value[NV], out[NV];
      for (int j = 0; j < NV; ++j) value[j] = v[c * NV + j], out[j] = o[c * NV + j];
      for (int r = 0; r < 4; ++r) {
        const F x = k[c * rows + i + r], y = q[c * rows + i + r];
        for (int j = 0; j < NV; ++j) {
          s[r][j] = gated(s[r][j], a[c * rows + i + r], b, full, c, i + r, j) + x * value[j];
          out[j] += y * s[r][j];
        }
      }
      for (int j = 0; j < NV; ++j) o[c * NV + j] = out[j];
    }
    for (int r = 0; r < 4; ++r)
      for (int j = 0; j < NV; ++j) S[(i + r) * NV + j] = s[r][j];
  }

  void backward() {
    const Int state = (n * p.H + h) * p.K * p.V, begin = p.offsets[n], end = p.offsets[n + 1];
    std::vector<Vec> dS(rows * NV), d_o(C * NV), d_v(C * NV), d_b(C * NV), d_g(C);
    load_state(p.d_final ? p.d_final + state : nullptr, dS);
    std::vector<std::vector<Vec>> starts(p.span);  // the states before the chunks of a span, computed again
    for (Int c = (end - begin + C - 1) / C - 1, last = c; c >= 0; --c) {
      const Int within = c % p.span;
      if (c == last || within == p.span - 1) {
        load_state(p.checkpoints + ((p.span_offsets[n] + c / p.span) * p.H + h) * p.K * p.V, S);
        for (Int i = 0; i <= within; ++i) {
          starts[i] = S;
          if (i == within) break;
          load(begin + (c - within + i) * C, begin + (c - within + i + 1) * C);
          for (Int r = 0; r < rows; r += 4) forward_rows(r, C);
        }
      }
      S = starts[within];
      const Int t0 = begin + c * C, t1 = std::min(t0 + C, end);
      load(t0, t1);
      for (Int t = t0; t < t1; ++t)
        std::memcpy(scalars(d_o) + (t - t0) * W, p.d_o + at_q(t) * p.V + first, width * sizeof(F));
      for (auto *x : {&d_v, &d_b, &d_g}) std::fill(x->begin(), x->end(), Vec{});
      for (Int i = 0; i < rows; i += R) backward_rows(i, t0, t1 - t0, dS.data(), d_o.data(), d_v.data(), d_b.data(), d_g.data());
      add_rows(t0, t1 - t0);
      for (Int t = t0; t < t1; ++t) {
        const Int to = at_q(t) * p.V + first, c = t - t0;
        std::memcpy(p.d_v + to, scalars(d_v) + c * W, width * sizeof(F));
        if (p.d_gv) std::memcpy(p.d_gv + to, scalars(d_b) + c * W, width * sizeof(F));
        if (p.d_g && gate == SCALAR)
          for (Int l = 0; l < L; ++l) p.d_g[at_q(t)] += d_g[c][l];
      }
    }
    if (p.d_initial) store_state(dS, p.d_initial + state);
  }

  void backward_rows(Int i, Int t0, Int steps, Vec *__restrict dS, const Vec *__restrict d_o, Vec *__restrict d_v,
                     Vec *__restrict d_b, Vec *__restrict d_g) {
    const F *__restrict q = this->q.data(), *__restrict k = this->k.data(), *__restrict a = this->a.data();
    const Vec *__restrict v = this->v.data(), *__restrict b = this->b.data(), *__restrict full = this->full.data();
    const Int rows = this->rows;
    Vec states[C + 1][R][NV], d_q[R][C] = {}, d_k[R][C] = {}, d_a[R][C] = {}, d[R][NV];
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < NV; ++j) states[0][r][j] = S[(i + r) * NV + j], d[r][j] = dS[(i + r) * NV + j];
    for (Int c = 0; c < steps; ++c)
      for (int r = 0; r < R; ++r)
        for (int j = 0; j < NV; ++j)
          states[c + 1][r][j] = gated(states[c][r][j], a[c * rows + i + r], b, full, c, i + r, j) + k[c * rows + i + r] * v[c * NV + j];
    for (Int c = steps - 1; c >= 0; --c) {
      Vec value[NV], upstream[NV], to_v[NV], log_gate = {};
      for (int j = 0; j < NV; ++j) value[j] = v[c * NV + j], upstream[j] = d_o[c * NV + j], to_v[j] = d_v[c * NV + j];
      for (int r = 0; r < R; ++r) {
        const F x = k[c * rows + i + r], y = q[c * rows + i + r];
        Vec to_q = {}, to_k = {}, to_a = {};
        for (int j = 0; j < NV; ++j) {
          Vec g = d[r][j] + y * upstream[j];
          to_q += states[c + 1][r][j] * upstream[j];
          to_k += g * value[j];
          to_v[j] += x * g;
          d[r][j] = g = gated(g, a[c * rows + i + r], b, full, c, i + r, j);
          if (gate == SCALAR) log_gate += g * states[c][r][j];
          if (gate == KEY) to_a += g * states[c][r][j];
          if (gate > KEY) {
            const Vec each = g * states[c][r][j];
            to_a += each;
            if (gate == COLUMN) d_b[c * NV + j] += each;
            if (gate == FULL && i + r < p.K) {
              F *to = p.d_G + (at_q(t0 + c) * p.K + i + r) * p.V + first + j * L;
              for (Int l = 0; l < std::min(L, width - j * L); ++l) to[l] = each[l];
            }
          }
        }
        d_q[r][c] = to_q, d_k[r][c] = to_k, d_a[r][c] = to_a;
      }
      for (int j = 0; j < NV; ++j) d_v[c * NV + j] = to_v[j];
      if (gate == SCALAR) d_g[c] += log_gate;
    }
    for (int r = 0; r < R; ++r)
      for (int j = 0; j < NV; ++j) dS[(i + r) * NV + j] = d[r][j];
    for (int r = 0; r < R; ++r)
      for (Int c = 0; c < steps; c += L) {
        const Vec to_q = row_sums(d_q[r] + c) * p.scale, to_k = row_sums(d_k[r] + c);
        const Vec to_a = gate >= KEY ? row_sums(d_a[r] + c) : Vec{};
        for (Int l = 0; l < L; ++l) {
          const Int to = (c + l) * rows + i + r;
          sum_q[to] = to_q[l], sum_k[to] = to_k[l];
          if (gate >= KEY) sum_a[to] = to_a[l];
        }
      }
  }

  // The tiles of value channels add up their shares of the gradients of q, k and the gates.
  void add_rows(Int t0, Int steps) {
    for (Int c = 0; c < steps; ++c) {
      const Int to = at_q(t0 + c);
      for (Int i = 0; i < p.K; ++i) p.d_q[to * p.K + i] += sum_q[c * rows + i], p.d_k[to * p.K + i] += sum_k[c * rows + i];
      for (Int i = 0; i < p.K && gate >= KEY && p.d_gk; ++i) p.d_gk[to * p.K + i] += sum_a[c * rows + i];
      for (Int i = 0; i < p.K && gate >= KEY && p.d_g; ++i) p.d_g[to] += sum_a[c * rows + i];
    }
  }
};

template <class F, int NV, Gate gate> static void run(const Problem<F> &p, Int n, Int h, Int first, bool backward) {
  Lane<F, NV, gate> lane(p, n, h, first);
  backward ? lane.backward() : lane.forward();
}

template <class F, Gate gate> static void scan(const Problem<F> &p, bool backward) {
  constexpr Int L = 64 / sizeof(F);
  parallel(p.N * p.H, p.threads, [&](Int job) {
    for (Int first = 0, left = p.V; left > 0;) {
      const Int vectors = left > 2 * L ? 4 : left > L ? 2 : 1;
      const Int n = job / p.H, h = job % p.H;
      if (vectors == 4) run<F, 4, gate>(p, n, h, first, backward);
      else if (vectors == 2) run<F, 2, gate>(p, n, h, first, backward);
      else run<F, 1, gate>(p, n, h, first, backward);
      first += vectors * L, left -= vectors * L;
    }
  });
}

template <class F> static void scan(const Problem<F> &p, bool backward) {
  if (p.G) scan<F, FULL>(p, backward);
  else if (p.gv) scan<F, COLUMN>(p, backward);
  else if (p.gk) scan<F, KEY>(p, backward);
  else if (p.g) scan<F, SCALAR>(p, backward);
  else scan<F, NONE>(p, backward);
}

extern "C" {
void advise_huge_pages(void *x, Int bytes) { huge_pages(x, bytes); }
void scan_float(const Problem<float> *p, int backward) { scan(*p, backward); }
void scan_double(const Problem<double> *p, int backward) { scan(*p, backward); }
}
