// The last query's output alone, o = Σ_t ω_t (q·k_t) v_t with the token weights ω of the gates, and its gradients.
//
// Tokens run from the last to the first, so that the logarithm of a weight is a running sum of log gates. The gradient
// of a log gate is an exclusive prefix sum over tokens, taken at the end. All rows have T tokens; heads as in scan.cpp.

#include "simd.h"

#define LAST_QUERY(INTEGER, REAL, INTEGERS, INPUT, OUTPUT)                                                                   \
  INTEGER(N) INTEGER(T) INTEGER(H) INTEGER(K) INTEGER(V)                                                                     \
  INTEGER(hk) INTEGER(hv) INTEGER(hg) INTEGER(hgk) INTEGER(hgv) INTEGER(threads)                                             \
  REAL(scale)                                                  /* of the query */                                            \
  INPUT(q) INPUT(k) INPUT(v) INPUT(g) INPUT(gk) INPUT(gv)      /* q [N, H, K], the others [N, T, heads, channels] */         \
  OUTPUT(o)                                                    /* [N, H, V]; null in the backward pass */                    \
  INPUT(d_o)                                                                                                                 \
  OUTPUT(d_q) OUTPUT(d_k) OUTPUT(d_v) OUTPUT(d_g) OUTPUT(d_gk) OUTPUT(d_gv) /* shaped like theirs; null if not asked for */

namespace {

template <class F> struct LastQuery {
  LAST_QUERY(INTEGER_FIELD, REAL_FIELD, INTEGERS_FIELD, INPUT_FIELD, OUTPUT_FIELD)
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
// the other side paired comes back. Lanes are channels; L tokens at a time. NARROW: one vector of channels, in registers.
template <class F, bool NARROW> struct Side {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;

  Rows<F> rows, gates, d_rows, d_gates;
  Int T, wide;      // tokens; vectors of channels
  std::conditional_t<NARROW, Vec[1], Vec *> read, total;  // [n]; total = Σ_t pairs_t w_t ⊙ row_t
  std::conditional_t<NARROW, Vec[1], Vec *> passed;       // [n]; what the tokens so far gave, the gradient of a log gate
  Vec *w, *behind;  // [L, n], token weights of a block; [blocks, n], sums of the log gates behind each block

  Side(Int T, const Rows<F> &rows, const Rows<F> &gates, const Rows<F> &d_rows, const Rows<F> &d_gates, const F *x, F scale,
       Vec *memory)
      : rows(rows), gates(gates), d_rows(d_rows), d_gates(d_gates), T(T), wide(vectors(rows.channels)) {
    if constexpr (!NARROW) read = memory, total = read + wide, passed = total + wide;
    w = memory + 3 * wide, behind = w + L * wide;
    for (Int j = 0; j < n(); ++j) read[j] = x ? scale * load(x + j * L, lanes(j)) : Vec{}, total[j] = passed[j] = Vec{};
  }
  Int n() const { return NARROW ? 1 : wide; }
  static Int vectors(Int channels) { return (channels + L - 1) / L; }
  static Int memory(Int T, Int channels) { return vectors(channels) * (3 + L + (T + L - 1) / L); }
  Int lanes(Int j) const { return NARROW ? rows.channels : std::min(rows.channels - j * L, L); }
  const F *row(const Rows<F> &y, Int t, Int j) const { return y.x + t * y.step + j * L; }

  // Calls f with pieces of 4, 2 or 1 vectors, the last one first.
  template <class Piece> void pieces(Piece piece) const {
    if constexpr (NARROW) piece(std::integral_constant<int, 1>{}, 0);
    else for (Int j = n(); j > 0;) {
      if (j % 4 == 0) piece(std::integral_constant<int, 4>{}, j -= 4);
      else if (j % 2 == 0) piece(std::integral_constant<int, 2>{}, j -= 2);
      else piece(std::integral_constant<int, 1>{}, j -= 1);
    }
  }

  void look_behind() {
    for (Int j = 0; j < n(); ++j) {
      Vec sum = {};
      for (Int t = T - 1; t >= 0; --t) {
        if (t % L == L - 1 || t == T - 1) behind[t / L * n() + j] = sum;
        sum += load(row(gates, t, j), lanes(j));
      }
    }
  }
  void weigh(Int t0, Int m) {
    for (Int j = 0; j < n(); ++j) {
      Vec sum = behind[t0 / L * n() + j];
      for (Int c = m - 1; c >= 0; --c) w[c * n() + j] = exponential<F>(sum), sum += load(row(gates, t0 + c, j), lanes(j));
    }
  }

  // Lane c: the read times row t0 + c, through its gates; 0 from lane m on.
  template <bool FULL> Vec meet(Int t0, Int m) const {
    Vec sum = {};
    pieces([&](auto J, Int j0) { sum += gates.x ? meet<J, true, FULL>(t0, m, j0) : meet<J, false, FULL>(t0, m, j0); });
    return sum;
  }
  template <int J, bool GATED, bool FULL> Vec meet(Int t0, Int m, Int j0) const {
    const Int last = lanes(j0 + J - 1), step = rows.step;
    const F *x = row(rows, t0, j0);
    Vec y[J];
    for (int j = 0; j < J; ++j) y[j] = read[j0 + j];
    const auto product = [&](int c) INLINE {
      Vec sum = {};
      for (int j = 0; j < J; ++j) {
        const Vec here = load(x + c * step + j * L, j < J - 1 ? L : last);
        sum += y[j] * (GATED ? here * w[c * n() + j0 + j] : here);
      }
      return sum;
    };
    return row_sums<F>(product, FULL ? L : m);
  }

  // Masked stores are slow: where rows follow that overwrite the surplus, whole vectors go out.
  bool covered(const Rows<F> &y, Int t, Int surplus) const {
    return !y.add && y.step == y.channels && (T - 1 - t) * y.channels >= surplus;
  }
  template <int J, bool COVERED> void put(const Rows<F> &y, Int t, Int j0, Int last, const Vec *x) const {
    F *to = y.x + t * y.step + j0 * L;
    const bool whole = COVERED || covered(y, t, L - last);
    for (int j = 0; j < J; ++j) {
      const Int count = j < J - 1 ? L : last;
      const Vec z = !COVERED && y.add ? x[j] + load(to + j * L, count) : x[j];
      if (whole || count == L) std::memcpy(to + j * L, &z, sizeof(Vec));
      else store<F>(z, to + j * L, count);
    }
  }

  // total += Σ_c pairs[c] row, where asked for; going backward also the gradients of rows and gates.
  template <bool FULL, bool BACKWARD> void give(Int t0, Int m, Vec pairs, bool sum) {
    alignas(64) F x[L];
    store<F>(pairs, x, L);
    pieces([&](auto J, Int j0) {
      gates.x ? give<J, true, FULL, BACKWARD>(t0, m, j0, x, true) : give<J, false, FULL, BACKWARD>(t0, m, j0, x, sum);
    });
  }
  template <int J, bool GATED, bool FULL, bool BACKWARD> void give(Int t0, Int m, Int j0, const F *pairs, bool sum) {
    constexpr int CHAINS = FULL ? 4 / J : 1;  // sums that need not wait for one another
    const Int last = lanes(j0 + J - 1), step = rows.step;
    const F *x = row(rows, t0, j0);
    Vec sums[CHAINS][J] = {}, before[J];
    for (int j = 0; j < J; ++j) before[j] = passed[j0 + j];
    const auto one = [&](Int c, Vec *sums) {
      Vec d[J], d_gate[J];
      for (int j = 0; j < J; ++j) {
        const Vec weight = GATED ? pairs[c] * w[c * n() + j0 + j] : Vec{};
        d[j] = GATED ? weight * read[j0 + j] : pairs[c] * read[j0 + j];
        if (!sum) continue;
        const Vec here = load(x + c * step + j * L, j < J - 1 ? L : last);
        sums[j] += GATED ? weight * here : pairs[c] * here;
        if (GATED && BACKWARD) d_gate[j] = before[j], before[j] += here * d[j];
      }
      if (BACKWARD && d_rows.x) put<J, FULL>(d_rows, t0 + c, j0, last, d);
      if (BACKWARD && GATED && d_gates.x) put<J, false>(d_gates, t0 + c, j0, last, d_gate);
    };
    if (FULL) {
#pragma GCC unroll 16
      for (int c = 0; c < L; ++c) one(c, sums[c % CHAINS]);
    } else for (Int c = 0; c < m; ++c) one(c, sums[0]);
    for (int j = 0; j < J; ++j) {
      for (int i = 0; i < CHAINS; ++i) total[j0 + j] += sums[i][j];
      passed[j0 + j] = before[j];
    }
  }
};

template <class F, bool NARROW> struct Worker {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;
  const LastQuery<F> &p;
  const Int blocks = (p.T + L - 1) / L;
  std::vector<Vec> weights, keys, values;

  explicit Worker(const LastQuery<F> &p)
      : p(p), weights(blocks), keys(Side<F, NARROW>::memory(p.T, p.K)), values(Side<F, NARROW>::memory(p.T, p.V)) {}

  // weights[t] = exp Σ_{i > t} g_i
  void weigh(const Rows<F> &g) {
    Vec behind = {};
    for (Int b = blocks - 1; b >= 0; --b) {
      const Int m = std::min(p.T - b * L, L);
      Vec x = {};
      if (g.step == 1) x = load(g.x + b * L, m);
      else for (Int c = 0; c < m; ++c) x[c] = g.x[(b * L + c) * g.step];
      const Vec from = running_sums<1, F>(x), after = shifted<1>(from, Lanes<F>());
      weights[b] = exponential<F>(behind + after);
      behind += Vec{} + from[0];
    }
  }

  template <bool BACKWARD> void one_head(Int n, Int h) {
    const auto rows = [&](const F *x, Int heads, Int channels) { return Rows<F>(p, x, n, h, heads, channels); };
    const Int at = n * p.H + h;
    Side<F, NARROW> key(p.T, rows(p.k, p.hk, p.K), rows(p.gk, p.hgk, p.K), rows(p.d_k, p.hk, p.K), rows(p.d_gk, p.hgk, p.K),
                        p.q + at * p.K, F(p.scale), keys.data());
    Side<F, NARROW> value(p.T, rows(p.v, p.hv, p.V), rows(p.gv, p.hgv, p.V), rows(p.d_v, p.hv, p.V), rows(p.d_gv, p.hgv, p.V),
                          p.d_o ? p.d_o + at * p.V : nullptr, F(1), values.data());
    const Rows<F> g = rows(p.g, p.hg, 1), d_g = rows(p.d_g, p.hg, 1);
    if (g.x) weigh(g);
    if (key.gates.x) key.look_behind();
    if (value.gates.x) value.look_behind();
    Vec passed = {};
    const auto block = [&](auto FULL, Int b, Int m) {
      const Int t0 = b * L;
      const Vec w = g.x ? weights[b] : Vec{} + F(1);
      if (key.gates.x) key.weigh(t0, m);
      if (value.gates.x) value.weigh(t0, m);
      const Vec scores = key.template meet<FULL>(t0, m) * w;
      Vec reads = {};
      if (BACKWARD) reads = value.template meet<FULL>(t0, m);
      value.template give<FULL, BACKWARD>(t0, m, scores, !BACKWARD);
      if (!BACKWARD) return;
      key.template give<FULL, true>(t0, m, reads * w, p.d_q);
      if (!d_g.x) return;
      const Vec up_to = running_sums<-1, F>(scores * reads);
      const Vec d = passed + shifted<-1>(up_to, Lanes<F>());
      passed += Vec{} + up_to[L - 1];
      if (d_g.step == 1 && !d_g.add) {
        store<F>(d, d_g.x + t0, m);
        return;
      }
      for (Int c = 0; c < m; ++c) {
        F &to = d_g.x[(t0 + c) * d_g.step];
        to = d_g.add ? to + d[c] : d[c];
      }
    };
    for (Int b = 0; b < blocks; ++b) {
      const Int m = std::min(p.T - b * L, L);
      const auto covered = [&](const auto &side) { return side.covered(side.d_rows, b * L + L - 1, L); };
      if (m == L && (!BACKWARD || (covered(key) && covered(value)))) block(std::bool_constant<NARROW>(), b, L);
      else block(std::false_type(), b, m);
    }
    const auto put = [&](const auto &side, F scale, F *x) {
      for (Int j = 0; j < side.n() && x; ++j) store<F>(scale * side.total[j], x + at * side.rows.channels + j * L, side.lanes(j));
    };
    if (BACKWARD) put(key, F(p.scale), p.d_q);
    else put(value, F(1), p.o);
  }

  // Without a single call inside, the vectors of a narrow head stay in registers.
  template <bool BACKWARD> __attribute__((flatten)) void narrow_head(Int n, Int h) { one_head<BACKWARD>(n, h); }
  template <bool BACKWARD> void head(Int n, Int h) {
    if constexpr (NARROW) narrow_head<BACKWARD>(n, h);
    else one_head<BACKWARD>(n, h);
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
        for (Int l = 0; l < L; ++l) q[i][l] = l < count ? F(p.scale) * p.q[(n * p.H + (first + l) / p.V) * p.K + i] : F(0);
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
          *to = ((first + l) % p.V ? *to : F(0)) + F(p.scale) * d_q[i][l];
        }
    }
  }
};

template <class F, bool NARROW> static void last_query(const LastQuery<F> &p) {
  parallel(p.N, p.threads, [&] {
    return [worker = Worker<F, NARROW>(p), &p](Int n) mutable {
      if (worker.shared()) worker.all_heads(n);
      else for (Int i = 0; i < p.H; ++i) p.d_o ? worker.template head<true>(n, i) : worker.template head<false>(n, i);
    };
  });
}
template <class F> static void last_query(const LastQuery<F> &p) {
  std::max(p.K, p.V) <= Int(LANES<F>) ? last_query<F, true>(p) : last_query<F, false>(p);
}

}  // namespace

extern "C" {
const char *last_query_fields() { return NAMES(LAST_QUERY); }
int vector_bytes() { return BYTES; }
void last_query_float(const LastQuery<float> *p) { last_query(*p); }
void last_query_double(const LastQuery<double> *p) { last_query(*p); }
}
