// What Python hands to the kernels that run whole sequences or one token (scan.cpp, full.cpp, delta.cpp, general.cpp, step.cpp)
// and to the delta rules' last query (delta_last.cpp).
//
// Tokens of all sequences lie one after the other: q [M, hq, K], v [M, hv, V] …; sequence n holds the tokens
// offsets[n] … offsets[n + 1]. Head h of H uses head h / (H / hq) of q. Gates come as logarithms, null where absent;
// rates A [hA, K, V] and steps dt [M, hdt, V] make the log gates A ⊙ dt. The delta rule erases with erase m and writes with
// beta v: null strengths [M, heads] are 1, and null m [M, hm, K] is k. The generalised one reads the state before its decay by
// a [M, ha, K] and writes that along b [M, hb, K]. Outputs and all gradients have H heads; those of A,
// the bonus and the initial state have a row per sequence. Null gradients are not asked for.
// Every field has eight bytes. Python reads names and order from `problem_fields` (library.py): they stand here alone.

#pragma once

#include "simd.h"

#define PROBLEM(INTEGER, REAL, INTEGERS, INPUT, OUTPUT)                                                                      \
  INTEGER(N) INTEGER(H) INTEGER(K) INTEGER(V)                                                                                \
  INTEGER(hq) INTEGER(hk) INTEGER(hv) INTEGER(hg) INTEGER(hgk) INTEGER(hgv) INTEGER(hG) INTEGER(hA) INTEGER(hdt)             \
  INTEGER(hm) INTEGER(hbeta) INTEGER(herase) INTEGER(ha) INTEGER(hb)                                                         \
  INTEGER(A_step) INTEGER(bonus_step) /* from one sequence's to the next's; 0 where all share them */                        \
  INTEGER(before)  /* outputs read the state before their own token's gate and write, and the bonus [H, K] adds the write */ \
  INTEGER(delta)   /* for one token, whether it writes its error */                                                          \
  INTEGER(span)    /* a state is kept every `span` chunks */                                                                 \
  INTEGER(threads)                                                                                                           \
  REAL(scale)                                                                                                                \
  INTEGERS(offsets) INTEGERS(span_offsets) /* [N + 1] in tokens and in spans */                                              \
  INPUT(q) INPUT(k) INPUT(v) INPUT(g) INPUT(gk) INPUT(gv) INPUT(G) INPUT(A) INPUT(dt) INPUT(bonus)                           \
  INPUT(m) INPUT(beta) INPUT(erase) /* of the delta rule */                                                                  \
  INPUT(a) INPUT(b)                 /* of the generalised one */                                                             \
  INPUT(initial)   /* [N, H, K, V] or null */                                                                                \
  OUTPUT(o) OUTPUT(final)                                                                                                    \
  OUTPUT(checkpoints) /* [spans, H, K, V]: states before them; written forward unless null, read backward */                 \
  OUTPUT(u)           /* [M, H, V]: what the delta rule wrote, along b or k; written forward unless null, read backward */   \
  INPUT(d_o) INPUT(d_final)                                                                                                  \
  OUTPUT(d_q) OUTPUT(d_k) OUTPUT(d_v) OUTPUT(d_g) OUTPUT(d_gk) OUTPUT(d_gv) OUTPUT(d_G) OUTPUT(d_A) OUTPUT(d_dt)             \
  OUTPUT(d_m) OUTPUT(d_beta) OUTPUT(d_erase) OUTPUT(d_a) OUTPUT(d_b) OUTPUT(d_bonus) OUTPUT(d_initial)

template <class F> struct Problem {
  PROBLEM(INTEGER_FIELD, REAL_FIELD, INTEGERS_FIELD, INPUT_FIELD, OUTPUT_FIELD)
};

// Tokens in a chunk. 16 is the least that fills the widest vector, 16 floats of AVX-512, with one token a lane. A token
// pays for C / 2 pairs of K + V channels, and K V / C for the decay and the rounding of the state: longer chunks would
// serve large states alone.
constexpr Int C = 16;

// Index of [t, head] for the head that head h of H uses.
struct Head {
  Int heads, own;
  Head(Int H, Int heads, Int h) : heads(heads), own(heads ? h / (H / heads) : 0) {}
  Int operator()(Int t) const { return t * heads + own; }
};
