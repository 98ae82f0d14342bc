// The last query's output alone, o = Σ_t ω_t (q·k_t) v_t with the token weights ω of the gates, and its gradients.
//
// Tokens run from the last to the first, so that the logarithm of a weight is a running sum of log gates. The gradient
// of a log gate is an exclusive prefix sum over tokens, taken at the end. All rows have T tokens; heads as in scan.cpp.

#include "simd.h"

template <class F> struct LastQuery {
  Int N, T, H, hk, hv, hg, hgk, hgv, K, V, threads;
  F scale;                                 // of the query
  const F *q, *k, *v, *g, *gk, *gv;        // q [N, H, K], the others [N, T, heads, channels]; gates null where absent
  F *o;                                    // [N, H, V]; null in the backward pass
  const F *d_o;
  F *d_q, *d_k, *d_v, *d_g, *d_gk, *d_gv;  // shaped like what they belong to; null where not asked for
};

// One head's share of a tensor [N, T, heads, channels].
template <class F> struct Rows {
  F *x = nullptr;           // of the first token, null where the tensor is absent
  Int step = 0;             // from token to token
  Int channels = 0;
  bool add = false;         // the first head of a group writes, others add

  Rows(const LastQuery<F> &p, const F *all, Int n, Int h, Int heads, Int channels) : step(heads * channels), channels(channels) {
    if (!all) return;
    const Int own = heads == p.H ? h : h * heads / p.H;
    x = const_cast<F *>(all) + (n * p.T * heads + own) * channels;
    add = heads != p.H && h != own * (p.H / heads);
  }
};

// Keys and values play the same game: a read (q, or d_o) meets the rows (k, or v) through the gates behind them, and what
// the other side paired comes back. Lanes are channels; L tokens at a time.
template <class F> struct Side {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = 64 / sizeof(F);

  Rows<F> rows, gates, d_rows, d_gates;
  Int T, n;                     // tokens; vectors of channels
  Vec *read, *total, *passed;   // [n]: Σ_t pairs_t w_t ⊙ row_t; what the tokens so far gave, the gradient of a log gate
  Vec *w, *behind;              // [L, n], token weights of a block; [blocks, n], sums of the log gates behind each block

  Side(Int T, const Rows<F> &rows, const Rows<F> &gates, const Rows<F> &d_rows, const Rows<F> &d_gates, const F *x, F scale,
       Vec *memory)
      : rows(rows), gates(gates), d_rows(d_rows), d_gates(d_gates), T(T), n(vectors(rows.channels)), read(memory),
        total(read + n), passed(total + n), w(passed + n), behind(w + L * n) {
    for (Int j = 0; j < n; ++j) read[j] = x ? scale * load(x + j * L, lanes(j)) : Vec{}, total[j] = passed[j] = Vec{};
  }
  static Int vectors(Int channels) { return (channels + L - 1) / L; }
  static Int memory(Int T, Int channels) { return vectors(channels) * (3 + L + (T + L - 1) / L); }
  Int lanes(Int j) const { return std::min(rows.channels - j * L, L); }
  const F *row(const Rows<F> &y, Int t, Int j) const { return y.x + t * y.step + j * L; }

  // Calls f with pieces of 4, 2 or 1 vectors, the last one first.
  template <class Piece> void pieces(Piece piece) const {
    for (Int j = n; j > 0;) {
      if (j % 4 == 0) piece(std::integral_constant<int, 4>{}, j -= 4);
      else if (j % 2 == 0) piece(std::integral_constant<int, 2>{}, j -= 2);
      else piece(std::integral_constant<int, 1>{}, j -= 1);
    }
  }

  void look_behind() {
    for (Int j = 0; j < n && gates.x; ++j) {
      Vec sum = {};
      for (Int t = T - 1; t >= 0; --t) {
        if (t % L == L - 1 || t == T - 1) behind[t / L * n + j] = sum;
        sum += load(row(gates, t, j), lanes(j));
      }
    }
  }
  void weigh(Int t0, Int m) {
    for (Int j = 0; j < n && gates.x; ++j) {
      Vec sum = behind[t0 / L * n + j];
      for (Int c = m - 1; c >= 0; --c) w[c * n + j] = exponential<F>(sum), sum += load(row(gates, t0 + c, j), lanes(j));
    }
  }

  // Lane c: the read times row t0 + c, through its gates; 0 from lane m on.
  Vec meet(Int t0, Int m) const {
    Vec sum = {};
    pieces([&](auto J, Int j0) { sum += gates.x ? meet<J, true>(t0, m, j0) : meet<J, false>(t0, m, j0); });
    return sum;
  }
  template <int J, bool GATED> Vec meet(Int t0, Int m, Int j0) const {
    const Int last = lanes(j0 + J - 1), step = rows.step;
    const F *x = row(rows, t0, j0);
    Vec y[J];
    for (int j = 0; j < J; ++j) y[j] = read[j0 + j];
    const auto product = [&](int c) INLINE {
      Vec sum = {};
      for (int j = 0; j < J; ++j) {
        const Vec here = load(x + c * step + j * L, j < J - 1 ? L : last);
        sum += y[j] * (GATED ? here * w[c * n + j0 + j] : here);
      }
      return sum;
    };
    if (m == L) return row_sums<F>(product);
    return row_sums<F>([&](int c) { return c < m ? product(c) : Vec{}; });
  }

  // total += Σ_c pairs[c] row; going backward also the gradients of rows and gates.
  void give(Int t0, Int m, Vec pairs, bool backward) {
    alignas(64) F x[L];
    store<F>(pairs, x, L);
    pieces([&](auto J, Int j0) {
      if (backward) gates.x ? give<J, true, true>(t0, m, j0, x) : give<J, false, true>(t0, m, j0, x);
      else gates.x ? give<J, true, false>(t0, m, j0, x) : give<J, false, false>(t0, m, j0, x);
    });
  }
  template <int J, bool GATED, bool BACKWARD> void give(Int t0, Int m, Int j0, const F *pairs) {
    const Int last = lanes(j0 + J - 1), step = rows.step;
    const F *x = row(rows, t0, j0);
    Vec y[J], sums[J], before[J];
    for (int j = 0; j < J; ++j) y[j] = read[j0 + j], sums[j] = total[j0 + j], before[j] = passed[j0 + j];
    for (Int c = 0; c < m; ++c, x += step) {
      Vec d[J], d_gate[J];
      for (int j = 0; j < J; ++j) {
        const Vec here = load(x + j * L, j < J - 1 ? L : last), weight = GATED ? w[c * n + j0 + j] : Vec{};
        sums[j] += pairs[c] * (GATED ? weight * here : here);
        d[j] = pairs[c] * (GATED ? weight * y[j] : y[j]);
        d_gate[j] = before[j], before[j] += here * d[j];
      }
      if (BACKWARD && d_rows.x) put<J>(d_rows, t0 + c, T - 1 - t0 - c, j0, last, d);
      if (BACKWARD && GATED && d_gates.x) put<J>(d_gates, t0 + c, T - 1 - t0 - c, j0, last, d_gate);
    }
    for (int j = 0; j < J; ++j) total[j0 + j] = sums[j], passed[j0 + j] = before[j];
  }

  // Masked stores are slow: where rows follow that overwrite the surplus, whole vectors go out.
  template <int J> INLINE void put(const Rows<F> &y, Int t, Int left, Int j0, Int last, const Vec *x) const {
    F *to = y.x + t * y.step + j0 * L;
    const bool covered = !y.add && y.step == y.channels && left * y.channels >= L - last;
    for (int j = 0; j < J; ++j) {
      const Int count = j < J - 1 ? L : last;
      const Vec z = y.add ? x[j] + load(to + j * L, count) : x[j];
      if (covered || count == L) std::memcpy(to + j * L, &z, sizeof(Vec));
      else store<F>(z, to + j * L, count);
    }
  }
};

template <class F> struct Worker {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = 64 / sizeof(F);
  const LastQuery<F> &p;
  const Int blocks = (p.T + L - 1) / L;
  std::vector<Vec> weights, keys, values;

  explicit Worker(const LastQuery<F> &p)
      : p(p), weights(blocks), keys(Side<F>::memory(p.T, p.K)), values(Side<F>::memory(p.T, p.V)) {}

  // weights[t] = exp Σ_{i > t} g_i
  void weigh(const Rows<F> &g) {
    Vec behind = {};
    for (Int b = blocks - 1; b >= 0; --b) {
      const Int m = std::min(p.T - b * L, L);
      Vec x = {};
      if (g.step == 1) x = load(g.x + b * L, m);
      else for (Int c = 0; c < m; ++c) x[c] = g.x[(b * L + c) * g.step];
      const Vec from = running_sums<1, F>(x), after = shifted<1>(from, std::make_integer_sequence<int, L>());
      weights[b] = exponential<F>(behind + after);
      behind += Vec{} + from[0];
    }
  }

  void one_head(Int n, Int h) {
    const auto rows = [&](const F *x, Int heads, Int channels) { return Rows<F>(p, x, n, h, heads, channels); };
    const Int at = n * p.H + h;
    Side<F> key(p.T, rows(p.k, p.hk, p.K), rows(p.gk, p.hgk, p.K), rows(p.d_k, p.hk, p.K), rows(p.d_gk, p.hgk, p.K), p.q + at * p.K,
                p.scale, keys.data());
    Side<F> value(p.T, rows(p.v, p.hv, p.V), rows(p.gv, p.hgv, p.V), rows(p.d_v, p.hv, p.V), rows(p.d_gv, p.hgv, p.V),
                  p.d_o ? p.d_o + at * p.V : nullptr, F(1), values.data());
    const Rows<F> g = rows(p.g, p.hg, 1), d_g = rows(p.d_g, p.hg, 1);
    if (g.x) weigh(g);
    key.look_behind(), value.look_behind();
    Vec passed = {};
    for (Int b = 0; b < blocks; ++b) {
      const Int t0 = b * L, m = std::min(p.T - t0, L);
      const Vec w = g.x ? weights[b] : Vec{} + F(1);
      key.weigh(t0, m), value.weigh(t0, m);
      const Vec scores = key.meet(t0, m) * w;
      value.give(t0, m, scores, p.d_o);
      if (!p.d_o) continue;
      const Vec reads = value.meet(t0, m);
      key.give(t0, m, reads * w, true);
      if (!d_g.x) continue;
      const Vec up_to = running_sums<-1, F>(scores * reads);
      const Vec d = passed + shifted<-1>(up_to, std::make_integer_sequence<int, L>());
      passed += Vec{} + up_to[L - 1];
      if (d_g.step == 1 && !d_g.add) {
        store<F>(d, d_g.x + t0, m);
        continue;
      }
      for (Int c = 0; c < m; ++c) {
        F &to = d_g.x[(t0 + c) * d_g.step];
        to = d_g.add ? to + d[c] : d[c];
      }
    }
    const auto put = [&](const Side<F> &side, F scale, F *x) {
      for (Int j = 0; j < side.n && x; ++j) store<F>(scale * side.total[j], x + at * side.rows.channels + j * L, side.lanes(j));
    };
    put(value, 1, p.o), put(key, p.scale, p.d_q);
  }

  // Lanes are the value channels of all heads, for keys that all heads share; the gates are value gates [N, T, H, V].
  std::vector<Vec> q, d_q, each;  // [K], [K]; [T], the weights
  bool shared() const {
    return p.hk == 1 && p.H > 1 && p.V < L && p.hv == p.H && (!p.gv || p.hgv == p.H) && !p.g && !p.gk && !p.d_k;
  }
  void all_heads(Int n) {
    const Int width = p.H * p.V;
    q.resize(p.K), d_q.resize(p.K), each.assign(p.T, Vec{} + F(1));
    for (Int first = 0; first < width; first += L) {
      const Int count = std::min(L, width - first);
      const auto at = [&](Int t) { return (n * p.T + t) * width + first; };
      for (Int i = 0; i < p.K; ++i) {
        d_q[i] = Vec{};
        for (Int l = 0; l < L; ++l) q[i][l] = l < count ? p.scale * p.q[(n * p.H + (first + l) / p.V) * p.K + i] : F(0);
      }
      Vec sum = {}, o = {}, passed = {};
      for (Int t = p.T - 1; t >= 0 && p.gv; --t) each[t] = exponential<F>(sum), sum += load(p.gv + at(t), count);
      const Vec up = p.d_o ? load(p.d_o + n * width + first, count) : Vec{};
      for (Int t = 0; t < p.T; ++t) {
        const F *k = p.k + (n * p.T + t) * p.K;
        const Vec v = load(p.v + at(t), count);
        Vec s = {};
        for (Int i = 0; i < p.K; ++i) s += k[i] * q[i];
        s *= each[t], o += s * v;
        if (!p.d_o) continue;
        const Vec d = s * up, back = up * v * each[t];
        if (p.d_v) store<F>(d, p.d_v + at(t), count);
        if (p.d_gv) store<F>(passed, p.d_gv + at(t), count);
        passed += d * v;
        for (Int i = 0; i < p.K; ++i) d_q[i] += k[i] * back;
      }
      if (p.o) store<F>(o, p.o + n * width + first, count);
      for (Int i = 0; i < p.K && p.d_q; ++i)
        for (Int l = 0; l < count; ++l) {
          F *to = p.d_q + (n * p.H + (first + l) / p.V) * p.K + i;
          *to = ((first + l) % p.V ? *to : F(0)) + p.scale * d_q[i][l];
        }
    }
  }
};

template <class F> static void last_query(const LastQuery<F> &p) {
  parallel(p.N, p.threads, [&] {
    return [worker = Worker<F>(p), h = p.H](Int n) mutable {
      if (worker.shared()) worker.all_heads(n);
      else for (Int i = 0; i < h; ++i) worker.one_head(n, i);
    };
  });
}

extern "C" {
void last_query_float(const LastQuery<float> *p) { last_query(*p); }
void last_query_double(const LastQuery<double> *p) { last_query(*p); }
}
