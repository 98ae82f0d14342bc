// The last query's output of tokens that are their own keys and, by a few columns, their values and gates,
// o_c = Σ_t (u·z_t) (a_c·z_t) Π_{i > t} sigmoid(w_c·z_i), and the gradients of u, a and w.
//
// What one column makes of a token is a number, so nothing of the size of the tokens is written. They are read once, into rows,
// whose lanes are channels, and turned, with tokens in lanes: products with columns take the turned ones, gradients the rows.

#include "activation.h"
#include "tiles.h"

#define TOKEN_QUERY(INTEGER, REAL, INTEGERS, INPUT, OUTPUT)                                   \
  INTEGER(N) INTEGER(batch)         /* prompts; those of a group, which share a and w */      \
  INTEGER(T) INTEGER(D) INTEGER(H) INTEGER(V)                                                 \
  INTEGER(C_w)                      /* gates of a head: 0, 1 or V */                          \
  INTEGER(threads)                                                                            \
  INPUT(z)                          /* [N, T, D] */                                           \
  INPUT(u)                          /* [N, H, D] */                                           \
  INPUT(a) INPUT(w)                 /* [N / batch, H, V, D], [N / batch, H, C_w, D] or null */ \
  OUTPUT(o)                         /* [N, H, V]; null in the backward pass */                \
  OUTPUT(kept)                      /* written forward unless null, read backward */          \
  INPUT(d_o)                        /* null in the forward pass */                            \
  OUTPUT(d_u) OUTPUT(d_a) OUTPUT(d_w) /* [N, H, …, D]: of each prompt */

// [N, H + H V + 2 H C_w, whole blocks of tokens]: u·z, a·z, the gates behind a token together, 1 - its own gate; then zeros.
constexpr Int BLOCK = 32;  // two of the widest vectors, so that every machine keeps the same

template <class F> struct TokenQuery {
  TOKEN_QUERY(INTEGER_FIELD, REAL_FIELD, INTEGERS_FIELD, INPUT_FIELD, OUTPUT_FIELD)
};

namespace {

template <class F> struct Prompt {
  using Vec = typename Vector<F>::type;
  static constexpr Int L = LANES<F>, S = 2 * L;  // tokens of a chunk: two vectors, for each number of a column that is read
  const TokenQuery<F> &p;
  const Int chunks, along, parts;    // of T; vectors of T that `kept` has room for, and of D
  const Int values, gates, columns;  // columns of all heads: of values, of gates, of all together
  Buffer<Vec> rows, turned;          // [chunks, S, parts]; [chunks, D, 2]
  Buffer<Vec> own;                   // what `kept` holds, where there is none
  Vec *dots, *weights, *closed;      // its parts, [H + values, along] and twice [gates, along]
  Buffer<Vec> shares;                // [columns, 2]: what the gradient of a column takes of each token
  Buffer<Vec> sums, passed;          // outputs [values], or gradients [columns, parts]; [gates], what the tokens so far gave

  explicit Prompt(const TokenQuery<F> &p)
      : p(p), chunks((p.T + S - 1) / S), along(p.kept ? (p.T + BLOCK - 1) / BLOCK * (BLOCK / L) : chunks * 2),
        parts((p.D + L - 1) / L), values(p.H * p.V), gates(p.H * p.C_w), columns(p.H + values + gates), rows(chunks * S * parts),
        turned(p.d_o ? 0 : chunks * S * parts), own(p.kept ? 0 : (columns + gates) * along), shares(columns * 2),
        sums(columns * parts), passed(gates) {}

  template <bool BACKWARD> void run(Int n) {
    const Int group = n / p.batch;
    dots = p.kept ? reinterpret_cast<Vec *>(p.kept) + n * (columns + gates) * along : own.data();
    weights = dots + (p.H + values) * along, closed = weights + gates * along;
    read(p.z + n * p.T * p.D);
    if (!BACKWARD) {
      for (Int b = 0; b < chunks; ++b) {
        transpose<F>(rows.data() + b * S * parts, S, parts, turned.data() + b * parts * S);
        multiply(b, p.u + n * p.H * p.D, p.H, dots);
        multiply(b, p.a + group * values * p.D, values, dots + p.H * along);
        multiply(b, p.w + group * gates * p.D, gates, weights);
      }
      weigh();
      for (Int x = 0; x < columns + gates && p.kept; ++x)
        std::fill(scalars<F>(dots + x * along) + p.T, scalars<F>(dots + (x + 1) * along), F(0));
    }
    std::fill_n(passed.data(), gates, Vec{});
    std::fill_n(sums.data(), columns * parts, Vec{});
    for (Int b = 0; b < chunks; ++b) {
      for (int i = 0; i < 2; ++i) pair<BACKWARD>(b, i, BACKWARD ? p.d_o + n * values : nullptr);
      if (BACKWARD) add_up(b);
    }
    for (Int i = 0; i < values && !BACKWARD; ++i) p.o[n * values + i] = running_sums<1, F>(sums[i])[0];
    if (!BACKWARD) return;
    put(0, p.H, p.d_u ? p.d_u + n * p.H * p.D : nullptr);
    put(p.H, values, p.d_a ? p.d_a + n * values * p.D : nullptr);
    put(p.H + values, gates, p.d_w ? p.d_w + n * gates * p.D : nullptr);
  }

 private:
  // The tokens, and zeros up to the end of a chunk and of a vector.
  void read(const F *z) {
    for (Int t = 0; t < chunks * S; ++t)
      for (Int j = 0; j < parts; ++j)
        rows[t * parts + j] = t < p.T ? load<F>(z + t * p.D + j * L, std::min(L, p.D - j * L)) : Vec{};
  }

  template <class Some> INLINE void in_rows(Int count, Some some) const {
    Int i = 0;
    for (; i + 4 <= count; i += 4) some(std::integral_constant<int, 4>{}, i);
    for (; i < count; ++i) some(std::integral_constant<int, 1>{}, i);
  }

  // y[i] = column i times the tokens, of chunk b.
  __attribute__((noinline)) void multiply(Int b, const F *x, Int count, Vec *y) const {
    in_rows(count, [&](auto R, Int i) INLINE {
      Vec sum[R][2] = {};
      add_products<ALONG>(sum, x + i * p.D, p.D, turned.data() + b * parts * S, 2, p.D);
      for (int r = 0; r < R; ++r)
        for (int j = 0; j < 2; ++j) y[(i + r) * along + b * 2 + j] = sum[r][j];
    });
  }

  // Which of the tokens of vector i of chunk b there are.
  auto there(Int b, int i) const {
    alignas(64) F ones[L];
    std::fill_n(ones, L, F(1));
    return load<F>(ones, std::min(L, std::max<Int>(0, p.T - b * S - i * L))) != Vec{};
  }

  // The weights of all tokens. log sigmoid(x) = -softplus(-x), and 1 - sigmoid(x) = sigmoid(-x). A loop for each step, so that many
  // vectors are under way at once: all steps of one vector after the other would be a chain of hundreds of cycles.
  void weigh() {
    const auto each = [&](auto change) INLINE {
      for (Int g = 0; g < gates; ++g)
        for (Int x = g * along; x < g * along + chunks * 2; ++x) change(x);
    };
    if (p.kept) each([&](Int x) INLINE { closed[x] = sigmoid<F>(-weights[x]); });
    each([&](Int x) INLINE { weights[x] = -softplus<F>(-weights[x]); });
    std::fill_n(passed.data(), gates, Vec{});  // sums of the log gates behind
    for (Int b = chunks - 1; b >= 0; --b)
      for (int i = 1; i >= 0; --i) {
        const auto these = there(b, i);
        for (Int g = 0; g < gates; ++g) {
          Vec &x = weights[g * along + b * 2 + i];
          const Vec from = running_sums<1, F>(these ? x : Vec{});
          x = passed[g] + shifted<1>(from, Lanes<F>());
          passed[g] += Vec{} + from[0];
        }
      }
    each([&](Int x) INLINE { weights[x] = exponential<F>(weights[x]); });
  }

  template <bool BACKWARD> void pair(Int b, int i, const F *up) {
    const Int at = b * 2 + i;
    const auto these = there(b, i);
    const auto share = [&](Int column) -> Vec & { return shares[column * 2 + i]; };
    for (Int h = 0; h < p.H; ++h) {
      const Vec score = these ? dots[h * along + at] : Vec{};
      Vec back = {}, given = {};
      for (Int c = h * p.V; c < (h + 1) * p.V; ++c) {
        const Int g = p.C_w == p.V ? c : h;
        const Vec value = dots[(p.H + c) * along + at], weight = gates ? weights[g * along + at] : Vec{} + F(1);
        const Vec weighted = score * weight;
        if (!BACKWARD) { sums[c] += weighted * value; continue; }
        share(p.H + c) = weighted * up[c];
        back += up[c] * value * weight;
        given += share(p.H + c) * value;
        if (!gates || (p.C_w < p.V && c + 1 < (h + 1) * p.V)) continue;  // a head's only gate weighs all its values
        const Vec up_to = running_sums<-1, F>(given), d = passed[g] + shifted<-1>(up_to, Lanes<F>());
        share(p.H + values + g) = these ? d * closed[g * along + at] : Vec{};
        passed[g] += Vec{} + up_to[L - 1];
        given = Vec{};
      }
      if (BACKWARD) share(h) = these ? back : Vec{};
    }
  }

  // sums[column] += Σ_t shares[column, t] z_t over chunk b.
  __attribute__((noinline)) void add_up(Int b) {
    in_rows(columns, [&](auto R, Int i) INLINE {
      constexpr int M = R;
      ::columns(parts, [&](auto J, Int j) INLINE {
        Vec sum[M][J] = {};
        add_products<ALONG>(sum, scalars<F>(shares.data()) + i * S, S, rows.data() + b * S * parts + j, parts, S);
        for (int r = 0; r < M; ++r)
          for (int k = 0; k < J; ++k) sums[(i + r) * parts + j + k] += sum[r][k];
      });
    });
  }
  void put(Int first, Int count, F *d) const {
    for (Int i = 0; i < count && d; ++i) std::copy_n(scalars<F>(sums.data() + (first + i) * parts), p.D, d + i * p.D);
  }
};

template <class F> void token_query(const TokenQuery<F> &p) {
  parallel(p.N, p.threads, [&] {
    return [prompt = Prompt<F>(p), &p](Int n) mutable { p.d_o ? prompt.template run<true>(n) : prompt.template run<false>(n); };
  });
}

}  // namespace

extern "C" {
const char *token_query_fields() { return NAMES(TOKEN_QUERY); }
void token_query_float(const TokenQuery<float> *p) { token_query(*p); }
void token_query_double(const TokenQuery<double> *p) { token_query(*p); }
}
