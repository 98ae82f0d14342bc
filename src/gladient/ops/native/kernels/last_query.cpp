// The last query's output alone, o = Σ_t ω_t (q·k_t) v_t with the token weights ω of the gates, and its gradients.
//
// Tokens run from the last to the first, so that the logarithm of a weight is a running sum of log gates. The gradient
// of a log gate is an exclusive prefix sum over tokens, taken at the end. All rows have T tokens; head h of H uses head
// h / (H / heads) of a tensor with fewer, whose gradient sums over the heads that share it.

#include "simd.h"

#define LAST_QUERY(INTEGER, REAL, INTEGERS, INPUT, OUTPUT)                                       \
  INTEGER(N) INTEGER(T) INTEGER(H) INTEGER(K) INTEGER(V)                                         \
  INTEGER(hk) INTEGER(hv) INTEGER(hg) INTEGER(hgk) INTEGER(hgv)                                  \
  INTEGER(threads)                                                                               \
  REAL(scale)                       /* of the query */                                           \
  INPUT(q)                          /* [N, H, K] */                                              \
  INPUT(k) INPUT(v)                 /* [N, T, heads, channels] */                                \
  INPUT(g) INPUT(gk) INPUT(gv)      /* log gates likewise, null where absent */                  \
  OUTPUT(o)                         /* [N, H, V]; null in the backward pass */                   \
  INPUT(d_o)                        /* null in the forward pass */                               \
  OUTPUT(d_q) OUTPUT(d_k) OUTPUT(d_v) OUTPUT(d_g) OUTPUT(d_gk) OUTPUT(d_gv) /* null: not asked for */

template <class F> struct LastQuery {
  LAST_QUERY(INTEGER_FIELD, REAL_FIELD, INTEGERS_FIELD, INPUT_FIELD, OUTPUT_FIELD)
};

namespace {  // other kernels have a Side and Rows too

// One head's share of a tensor [N, T, heads, channels].
template <class F> struct Rows {
  using Vec = typename Vector<F>::type;
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

  // Stores of some lanes are slow: where rows of later tokens overwrite the surplus, whole vectors go out.
  bool covered(Int t, Int T) const {
    return !x || (!add && step == channels && (T - 1 - t) * channels >= (-channels & (LANES<F> - 1)));
  }
  // The only channel of m tokens, token in lanes.
  Vec column(Int t0, Int m) const {
    if (step == 1) return load<F>(x + t0, m);
    Vec y = {};
    for (Int c = 0; c < m; ++c) y[c] = x[(t0 + c) * step];
    return y;
  }
  void put_column(Vec y, Int t0, Int m) const {
    if (step == 1 && !add) return store<F>(y, x + t0, m);
    for (Int c = 0; c < m; ++c) {
      F &to = x[(t0 + c) * step];
      to = add ? to + y[c] : y[c];
    }
  }
};

// A gate for all channels, token in lanes.
template <class F> struct TokenGate {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;
  Rows<F> gate, d_gate;
  Vec *weights;      // [blocks]: exp of the sum of the log gates behind a token
  Vec passed = {};   // what the tokens so far gave, the gradient of a log gate

  void weigh(Int T) {
    Vec behind = {};
    for (Int b = (T + L - 1) / L - 1; b >= 0 && gate.x; --b) {
      const Vec from = running_sums<1, F>(gate.column(b * L, std::min(T - b * L, L)));
      weights[b] = exponential<F>(behind + shifted<1>(from, Lanes<F>()));
      behind += Vec{} + from[0];
    }
  }
  Vec operator()(Vec x, Int b) const { return gate.x ? x * weights[b] : x; }
  void give(Vec d, Int t0, Int m) {
    if (!d_gate.x) return;
    const Vec up_to = running_sums<-1, F>(d);
    d_gate.put_column(passed + shifted<-1>(up_to, Lanes<F>()), t0, m);
    passed += Vec{} + up_to[L - 1];
  }
};

// Keys and values play the same game: a read (q, or d_o) meets the rows (k, or v) through the gates behind them, and what
// the other side paired comes back. L tokens at a time; lanes are channels, or tokens where there is but one channel.
template <class F> struct Side {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;

  Rows<F> rows, gates, d_rows, d_gates;
  Int T, n, last;           // tokens; vectors of channels; channels in the last one
  bool thin;                // one channel
  Vec *read, *total;        // [n]; total = Σ_t pairs_t w_t ⊙ row_t
  Vec *passed;              // [n]; what the tokens so far gave, the gradient of a log gate
  Vec *w, *behind;          // [L, n], token weights of a block; [blocks, n], sums of the log gates behind each block
  TokenGate<F> gate;        // of the one channel

  Side(Int T, const Rows<F> &rows, const Rows<F> &gates, const Rows<F> &d_rows, const Rows<F> &d_gates, const F *x, F scale,
       Vec *memory)
      : rows(rows), gates(gates), d_rows(d_rows), d_gates(d_gates), T(T), n(vectors(rows.channels)),
        last(rows.channels - (n - 1) * L), thin(rows.channels == 1), read(memory), total(read + n), passed(total + n),
        w(passed + n), behind(w + L * n), gate{gates, d_gates, behind} {
    for (Int j = 0; j < n; ++j) read[j] = x ? scale * load<F>(x + j * L, lanes(j)) : Vec{}, total[j] = passed[j] = Vec{};
    if (thin) read[0] = Vec{} + read[0][0], gate.weigh(T);
    else if (gates.x) look_behind();
  }
  static Int vectors(Int channels) { return (channels + L - 1) / L; }
  static Int memory(Int T, Int channels) { return vectors(channels) * (3 + L + (T + L - 1) / L); }
  Int lanes(Int j) const { return j < n - 1 ? L : last; }

  // Calls f with pieces of at most 4 vectors, the last one first.
  template <class Piece> INLINE void pieces(Piece piece) const {
    Int j = n & ~Int(3);
    if (n % 4 == 1) piece(std::integral_constant<int, 1>{}, j);
    else if (n % 4 == 2) piece(std::integral_constant<int, 2>{}, j);
    else if (n % 4 == 3) piece(std::integral_constant<int, 3>{}, j);
    while (j > 0) piece(std::integral_constant<int, 4>{}, j -= 4);
  }

  void look_behind() {
    for (Int j = 0; j < n; ++j) {
      Vec sum = {};
      for (Int t = T - 1; t >= 0; --t) {
        if (t % L == L - 1 || t == T - 1) behind[t / L * n + j] = sum;
        sum += load<F>(gates.x + t * gates.step + j * L, lanes(j));
      }
    }
  }
  void weigh(Int t0, Int m) {
    if (thin || !gates.x) return;
    for (Int j = 0; j < n; ++j) {
      const F *x = gates.x + t0 * gates.step + j * L;
      Vec sum = behind[t0 / L * n + j];
      for (Int c = m - 1; c >= 0; --c) w[c * n + j] = exponential<F>(sum), sum += load<F>(x + c * gates.step, lanes(j));
    }
  }

  // Lane c: the read times row t0 + c, through its gates; 0 from lane m on.
  template <bool FULL> INLINE Vec meet(Int t0, Int m) const {
    if (thin) return gate(read[0] * rows.column(t0, m), t0 / L);
    Vec sum = {};
    pieces([&](auto J, Int j0) INLINE { sum += gates.x ? meet<J, true, FULL>(t0, m, j0) : meet<J, false, FULL>(t0, m, j0); });
    return sum;
  }
  template <int J, bool GATED, bool FULL> Vec meet(Int t0, Int m, Int j0) const {
    const Int count = lanes(j0 + J - 1), step = rows.step, n = this->n;
    const F *x = rows.x + t0 * step + j0 * L;
    const Vec *weights = w + j0;
    Vec y[J];
    for (int j = 0; j < J; ++j) y[j] = read[j0 + j];
    const auto product = [&](int c) INLINE {
      Vec sum = {};
      for (int j = 0; j < J; ++j) {
        const Vec here = load<F>(x + c * step + j * L, j < J - 1 ? L : count);
        sum += y[j] * (GATED ? here * weights[c * n + j] : here);
      }
      return sum;
    };
    return row_sums<F>(product, FULL ? L : m);
  }

  bool covered(Int t) const { return thin || (d_rows.covered(t, T) && d_gates.covered(t, T)); }
  template <int J, bool COVERED> INLINE void put(const Rows<F> &y, Int t, Int j0, Int count, const Vec *x) const {
    F *to = y.x + t * y.step + j0 * L;
    for (int j = 0; j < J; ++j) {
      const Int lanes = COVERED || j < J - 1 ? L : count;
      store<F>(!COVERED && y.add ? x[j] + load<F>(to + j * L, lanes) : x[j], to + j * L, lanes);
    }
  }

  // total += Σ_c pairs[c] row, where asked for; going backward also the gradients of rows and gates.
  template <bool FULL, bool BACKWARD> INLINE void give(Int t0, Int m, Vec pairs, bool sum) {
    if (thin) {
      const Vec weight = gate(pairs, t0 / L), here = rows.column(t0, m), d = weight * read[0];
      total[0] += weight * here;
      if (BACKWARD && d_rows.x) d_rows.put_column(d, t0, m);
      if (BACKWARD) gate.give(here * d, t0, m);
      return;
    }
    alignas(64) F x[L];
    store<F>(pairs, x, L);
    pieces([&](auto J, Int j0) INLINE {
      gates.x ? give<J, true, FULL, BACKWARD>(t0, m, j0, x, true) : give<J, false, FULL, BACKWARD>(t0, m, j0, x, sum);
    });
  }
  template <int J, bool GATED, bool FULL, bool BACKWARD> void give(Int t0, Int m, Int j0, const F *pairs, bool sum) {
    constexpr int CHAINS = FULL ? 4 / J : 1;  // sums that need not wait for one another
    const Int count = lanes(j0 + J - 1), step = rows.step, n = this->n;
    const F *x = rows.x + t0 * step + j0 * L;
    const Vec *weights = w + j0;
    Vec y[J], sums[CHAINS][J] = {}, before[J];
    for (int j = 0; j < J; ++j) y[j] = read[j0 + j], before[j] = passed[j0 + j];
    const auto one = [&](Int c, Vec *sums) INLINE {
      Vec d[J], d_gate[J];
      for (int j = 0; j < J; ++j) {
        const Vec weight = GATED ? pairs[c] * weights[c * n + j] : Vec{} + pairs[c];
        d[j] = weight * y[j];
        if (!sum) continue;
        const Vec here = load<F>(x + c * step + j * L, j < J - 1 ? L : count);
        sums[j] += weight * here;
        if (GATED && BACKWARD) d_gate[j] = before[j], before[j] += here * d[j];
      }
      if (BACKWARD && d_rows.x) put<J, FULL>(d_rows, t0 + c, j0, count, d);
      if (BACKWARD && GATED && d_gates.x) put<J, FULL>(d_gates, t0 + c, j0, count, d_gate);
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

  void finish(F scale, F *x) {
    if (thin) total[0] = running_sums<1, F>(total[0]);
    for (Int j = 0; j < n && x; ++j) store<F>(scale * total[j], x + j * L, lanes(j));
  }
};

template <class F> struct Worker {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>;
  const LastQuery<F> &p;
  Buffer<Vec> weights, keys, values;  // of `head`
  Buffer<Vec> q, d_q, each;           // of `all_heads`: [K], [K]; [T], the weights

  explicit Worker(const LastQuery<F> &p) : p(p) {
    if (shared()) q = Buffer<Vec>(p.K), d_q = Buffer<Vec>(p.K), each = Buffer<Vec>(p.T);
    else {
      weights = Buffer<Vec>((p.T + L - 1) / L);
      keys = Buffer<Vec>(Side<F>::memory(p.T, p.K)), values = Buffer<Vec>(Side<F>::memory(p.T, p.V));
    }
  }

  template <bool BACKWARD> void head(Int n, Int h) {
    const auto rows = [&](const F *x, Int heads, Int channels) { return Rows<F>(p, x, n, h, heads, channels); };
    const Int at = n * p.H + h;
    Side<F> key(p.T, rows(p.k, p.hk, p.K), rows(p.gk, p.hgk, p.K), rows(p.d_k, p.hk, p.K), rows(p.d_gk, p.hgk, p.K),
                p.q + at * p.K, p.scale, keys.data());
    Side<F> value(p.T, rows(p.v, p.hv, p.V), rows(p.gv, p.hgv, p.V), rows(p.d_v, p.hv, p.V), rows(p.d_gv, p.hgv, p.V),
                  p.d_o ? p.d_o + at * p.V : nullptr, F(1), values.data());
    TokenGate<F> gate{rows(p.g, p.hg, 1), rows(p.d_g, p.hg, 1), weights.data()};
    gate.weigh(p.T);
    const auto block = [&](auto FULL, Int t0, Int m) INLINE {
      key.weigh(t0, m), value.weigh(t0, m);
      const Vec scores = gate(key.template meet<FULL>(t0, m), t0 / L);
      const Vec reads = BACKWARD ? value.template meet<FULL>(t0, m) : Vec{};
      value.template give<FULL, BACKWARD>(t0, m, scores, !BACKWARD);
      if (!BACKWARD) return;
      key.template give<FULL, true>(t0, m, gate(reads, t0 / L), p.d_q);
      gate.give(scores * reads, t0, m);
    };
    for (Int t0 = 0; t0 < p.T; t0 += L) {
      const Int m = std::min(p.T - t0, L);
      if (m == L && key.covered(t0 + L - 1) && value.covered(t0 + L - 1)) block(std::true_type(), t0, L);
      else block(std::false_type(), t0, m);
    }
    if (BACKWARD) key.finish(p.scale, p.d_q ? p.d_q + at * p.K : nullptr);
    else value.finish(1, p.o + at * p.V);
  }

  // A head without gates of channels, of at most 2 vectors a side: all that a token does not change stays in registers.
  bool narrow() const { return !p.gk && !p.gv && p.K > 1 && p.V > 1 && p.K <= 2 * L && p.V <= 2 * L; }
  template <bool BACKWARD> void narrow(Int n, Int h) {
    constexpr std::integral_constant<int, 1> one;
    constexpr std::integral_constant<int, 2> two;
    const auto values = [&](auto I) INLINE { p.V > L ? narrow<BACKWARD>(n, h, I, two) : narrow<BACKWARD>(n, h, I, one); };
    p.K > L ? values(two) : values(one);
  }
  template <bool BACKWARD, int I, int J>
  void narrow(Int n, Int h, std::integral_constant<int, I>, std::integral_constant<int, J>) {
    constexpr int S = BACKWARD ? I : J, CHAINS = 4 / S;  // of the sums, o or d_q, that need not wait for one another
    const auto rows = [&](const F *x, Int heads, Int channels) INLINE { return Rows<F>(p, x, n, h, heads, channels); };
    const Rows<F> k = rows(p.k, p.hk, p.K), v = rows(p.v, p.hv, p.V), d_k = rows(p.d_k, p.hk, p.K), d_v = rows(p.d_v, p.hv, p.V);
    TokenGate<F> gate{rows(p.g, p.hg, 1), rows(p.d_g, p.hg, 1), weights.data()};
    gate.weigh(p.T);
    const Int at = n * p.H + h;
    Vec q[I], up[J], sums[CHAINS][S] = {};
    for (int i = 0; i < I; ++i) q[i] = F(p.scale) * part<I>(p.q + at * p.K, p.K, i);
    for (int j = 0; j < J; ++j) up[j] = BACKWARD ? part<J>(p.d_o + at * p.V, p.V, j) : Vec{};
    const auto block = [&](auto FULL, Int t0, Int m) INLINE {
      const auto meet = [&](const auto &x, const Rows<F> &rows) INLINE {
        constexpr int N = sizeof(x) / sizeof(Vec);
        return row_sums<F>([&](int c) INLINE {
          Vec sum = x[0] * part<N>(rows.x + (t0 + c) * rows.step, rows.channels, 0);
          if (N > 1) sum += x[N - 1] * part<N>(rows.x + (t0 + c) * rows.step, rows.channels, N - 1);
          return sum;
        }, FULL ? L : m);
      };
      const Vec met = gate(meet(q, k), t0 / L), reads = BACKWARD ? meet(up, v) : Vec{};
      alignas(64) F scores[L], pairs[L];
      store<F>(met, scores, L), store<F>(BACKWARD ? gate(reads, t0 / L) : met, pairs, L);
      const Rows<F> &summed = BACKWARD ? k : v;
      const auto one = [&](Int c, Vec *sums) INLINE {
#pragma GCC unroll 2
        for (int i = 0; i < S; ++i)
          sums[i] += pairs[c] * part<S>(summed.x + (t0 + c) * summed.step, summed.channels, i);
        if (BACKWARD && d_v.x) put<FULL>(d_v, t0 + c, scores[c], up);
        if (BACKWARD && d_k.x) put<FULL>(d_k, t0 + c, pairs[c], q);
      };
      if (FULL) {
#pragma GCC unroll 16
        for (int c = 0; c < L; ++c) one(c, sums[c % CHAINS]);
      } else for (Int c = 0; c < m; ++c) one(c, sums[0]);
      if (BACKWARD) gate.give(met * reads, t0, m);
    };
    for (Int t0 = 0; t0 < p.T; t0 += L) {
      const Int m = std::min(p.T - t0, L);
      if (m == L && (!BACKWARD || (d_k.covered(t0 + L - 1, p.T) && d_v.covered(t0 + L - 1, p.T)))) block(std::true_type(), t0, L);
      else block(std::false_type(), t0, m);
    }
    F *to = BACKWARD ? p.d_q : p.o;
    const Int channels = BACKWARD ? p.K : p.V;
    for (int i = 0; i < S && to; ++i) {
      for (int c = 1; c < CHAINS; ++c) sums[0][i] += sums[c][i];
      store<F>(BACKWARD ? F(p.scale) * sums[0][i] : sums[0][i], to + at * channels + i * L, lanes<S>(channels, i));
    }
  }
  // Vector i of the N that hold so many channels.
  template <int N> static INLINE Int lanes(Int channels, int i) { return i < N - 1 ? L : channels - (N - 1) * L; }
  template <int N> static INLINE Vec part(const F *x, Int channels, int i) { return load<F>(x + i * L, lanes<N>(channels, i)); }
  template <bool COVERED, int N> static INLINE void put(const Rows<F> &rows, Int t, F weight, const Vec (&x)[N]) {
#pragma GCC unroll 2
    for (int i = 0; i < N; ++i) {
      F *to = rows.x + t * rows.step + i * L;
      const Int count = COVERED ? L : lanes<N>(rows.channels, i);
      const Vec y = weight * x[i];
      store<F>(!COVERED && rows.add ? y + load<F>(to, count) : y, to, count);
    }
  }

  // Lanes are the value channels of all heads, for keys that all heads share; the gates are value gates [N, T, H, V].
  bool shared() const {
    return p.hk == 1 && p.H > 1 && p.V < L && p.hv == p.H && (!p.gv || p.hgv == p.H) && !p.g && !p.gk && !p.d_k;
  }
  void all_heads(Int n) {
    const Int width = p.H * p.V;
    std::fill_n(each.data(), p.T, Vec{} + F(1));
    for (Int first = 0; first < width; first += L) {
      const Int count = std::min(L, width - first);
      const auto at = [&](Int t) { return (n * p.T + t) * width + first; };
      for (Int i = 0; i < p.K; ++i) {
        d_q[i] = Vec{};
        for (Int l = 0; l < L; ++l) q[i][l] = l < count ? F(p.scale) * p.q[(n * p.H + (first + l) / p.V) * p.K + i] : F(0);
      }
      Vec sum = {}, o = {}, passed = {};
      for (Int t = p.T - 1; t >= 0 && p.gv; --t) each[t] = exponential<F>(sum), sum += load<F>(p.gv + at(t), count);
      const Vec up = p.d_o ? load<F>(p.d_o + n * width + first, count) : Vec{};
      for (Int t = 0; t < p.T; ++t) {
        const F *k = p.k + (n * p.T + t) * p.K;
        const Vec v = load<F>(p.v + at(t), count);
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

template <class F> void last_query(const LastQuery<F> &p) {
  parallel(p.N, p.threads, [&] {
    return [worker = Worker<F>(p), &p](Int n) mutable {
      if (worker.shared()) worker.all_heads(n);
      else if (worker.narrow()) for (Int h = 0; h < p.H; ++h) p.d_o ? worker.template narrow<true>(n, h) : worker.template narrow<false>(n, h);
      else for (Int h = 0; h < p.H; ++h) p.d_o ? worker.template head<true>(n, h) : worker.template head<false>(n, h);
    };
  });
}

}  // namespace

extern "C" {
const char *last_query_fields() { return NAMES(LAST_QUERY); }
int vector_bytes() { return BYTES; }
void last_query_float(const LastQuery<float> *p) { last_query(*p); }
void last_query_double(const LastQuery<double> *p) { last_query(*p); }
}
