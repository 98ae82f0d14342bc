// What Python hands to the kernels that run whole sequences (scan.cpp, full.cpp).
//
// Tokens of all sequences lie one after the other: q [M, H, K], v [M, hv, V] …; sequence n holds the tokens
// offsets[n] … offsets[n + 1]. Head h of q uses head h / (H / hk) of k. Gates come as logarithms, null where absent.
// Every function exists for float and double; Python calls them through ctypes (native.py).

#pragma once

#include "simd.h"

template <class F> struct Problem {
  Int N, H, hk, hv, hg, hgk, hgv, K, V, span, threads;           // a state is kept every `span` chunks
  F scale;
  const Int *offsets, *span_offsets;                             // [N + 1] in tokens and in spans
  const F *q, *k, *v, *g, *gk, *gv, *G, *initial;
  F *o, *final, *checkpoints;                                    // checkpoints [spans, H, K, V]: states before them
  const F *d_o, *d_final;
  F *d_q, *d_k, *d_v, *d_g, *d_gk, *d_gv, *d_G, *d_initial;      // all with H heads, null where not asked for
};

constexpr Int C = 16;  // tokens in a chunk

// Index of [t, head] for the head that head h of q uses.
struct Head {
  Int heads, own;
  Int operator()(Int t) const { return t * heads + own; }
};
