"use strict";
// What the page draws, and what it does when it is asked; `weights.js` computes.
(() => {
  const { $, NAMES, escape, clean, unknown, percent, number, colour, largest, most, tip, untip, describe, path, nextTokens } = draw;
  const LONG = {
    gates: "<b>Γ</b>, the gates' weight", turned: "<b>Γ cos φ</b>, decay and turn", similarity: "<b>qᵀk</b>, similarity", product: "<b>Their product</b>, the implicit attention",
  };
  const LONG_DELTA = {
    gates: "<b>Γ</b>, the gates alone", turned: "<b>Γ cos φ</b>, decay and turn", kept: "<b>β Γ qᵀk</b>, if nothing were erased", product: "<b>Implicit attention</b>, exact", erased: "<b>By erasing</b>, their difference",
  };
  const dark = matchMedia("(prefers-color-scheme: dark)"), paper = matchMedia("print");
  const state = { model: 0, layer: 0, head: 0, t: 0, near: null, quantity: "product", beside: -1, besideT: 0 };
  let xs = null, x = null, whole = null, current = null, size = {}, there = null, moved = null, asked = 0;

  const model = () => lens.models[state.model];
  const layer = () => model().layers[state.layer];
  const shown = i => clean(model().tokens[i]);
  const named = () => `${model().name}-layer${layer().layer}-${state.head < 0 ? "mean" : "head" + layer().heads[state.head]}`.replace(/[^\w.-]+/g, "_");
  const here = () => ({ model: model(), layer: layer(), head: state.head, x, whole, current, t: state.t });
  const first = m => beside.partners(lens.models[m])[0]?.[1] ?? -1;
  const closed = i => lens.closedBy(xs, i);

  // Panels
  const titled = m => m.label ? `${m.name}, ${m.label}` : m.name;
  const fails = l => !l.reconstruction.passed;
  function unusual(l) {                                           // rounding far beyond that of the other layers
    const errors = model().layers.map(m => m.reconstruction.error).sort((a, b) => a - b), median = errors[errors.length >> 1];
    return l.reconstruction.error > 10 * median ? l.reconstruction.error / median : 0;
  }
  function reason(l) {
    const r = l.reconstruction;
    if (fails(l)) return r.reason;
    return unusual(l) ? `head ${r.head} rounds ${number(unusual(l))} times as much as the median layer` : "";
  }
  function drawHeader() {
    const m = model(), good = m.layers.filter(l => !fails(l)).length;
    $("title").textContent = `${titled(m)}, ${m.tokens.length} tokens, ${m.layers.length} ${m.layers.length === 1 ? "layer" : "layers"}`;
    $("verdict").textContent = good === m.layers.length ? `✓ ${good} of ${good} layers proved` : `✗ ${m.layers.length - good} of ${m.layers.length} layers are NOT proved`;
    $("verdict").className = "verdict " + (good === m.layers.length ? "pass" : "fail");
    $("facts").textContent = m.facts;
  }
  function drawNext() {
    const next = model().predictions?.[state.t];
    $("next").innerHTML = next ? `The model's next token here: ${nextTokens(next)}` : "";
  }
  function drawStrip() {
    const q = state.quantity, values = q === "closed" ? null : current[q] || current.product;
    const top = most(q === "closed" ? Array.from({ length: x.T }, (_, i) => closed(i) || 0) : values);
    const rgbs = model().tokens.map((_, i) => q === "closed" ? colour(-closed(i), top) : i <= state.t ? colour(values[i], top) : null);
    draw.strip($("strip"), model().tokens, state.t, state.near, rgbs);
  }
  function drawMaps() {
    const names = lens.quantities(x), long = x.separable ? LONG : LONG_DELTA;
    $("h-maps").textContent = x.separable ? "Gates × similarity = implicit attention" : "Delta rule: before erasing + what erasing changes = implicit attention";
    $("maps-note").textContent = "Row: the query, from the first token down. Column: the token that it weighs. " + (x.separable
      ? "Gates alone say what a head can still remember; similarity, what it looks for; their product is what it reads."
        + (x.channels > 1 ? ` Each of ${x.channels} key channels has gates of its own: Γ is their mean, and the product is taken channel by channel.` : "")
      : "Every write first erases what the state holds for its key, so a token's weight depends on the keys written after it: gates and similarity do not separate.")
      + (x.phase ? " Keys and queries turn from token to token: Γ cos φ is the decay times the cosine of the turn since a token was written, orange where it is read reversed; pairs of channels count by |q| |k|." : "")
      + (x.norm ? " The product is divided by the layer's normaliser." : "")
      + ` Queries and keys of this layer are kept in ${Math.ceil(Math.log2(2 * layer().steps + 1))} bits${layer().off ? `: qᵀk is off by about ${number(layer().off)} |q| |k|` : ""}.`;
    $("maps").style.setProperty("--maps", names.length);
    $("maps").innerHTML = names.map(n => draw.map(`map-${n}`, `${long[n]} <button type="button" data-n="${n}" title="Download as NPY">.npy</button>`, `Heat map of ${NAMES[n]}`, model().tokens)).join("");
    for (const button of $("maps").querySelectorAll("button")) button.onclick = () => save(lens.npy(whole[button.dataset.n], x.T), `${named()}-${button.dataset.n}.npy`);
    size = {};
    for (const n of names) {
      size[n] = n === "gates" ? Math.max(largest(whole.gates), 1e-300) : largest(whole[n]);
      if (n === "gates" && size[n] <= 1) size[n] = 1;
      if (n === "turned") size[n] = size.gates;
      const canvas = $("map-" + n);
      draw.paint(canvas, whole[n], x.T, size[n]);
      draw.legend(canvas.closest("figure").querySelector(".legend"), size[n], n !== "gates");
      listen(canvas);
    }
    cross();
  }
  function listen(canvas) {
    canvas.onmousemove = event => {
      const [t, i] = draw.pointed(canvas, x.T, event);
      tip(describe(model().tokens, t, i, lens.rowOf(whole, x.T, t)), event);
    };
    canvas.onmouseleave = untip;
    canvas.onclick = event => { const [t, i] = draw.pointed(canvas, x.T, event); move(t, Math.min(i, t)); };
    canvas.onkeydown = event => {
      const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
      if (!steps) return;
      event.preventDefault();
      move(state.t + steps[0], (state.near ?? state.t) + steps[1]);
    };
  }
  function cross() {
    for (const canvas of $("maps").querySelectorAll("canvas")) draw.cross(canvas, x.T, state.t, state.near ?? state.t);
  }
  function drawStep() {
    const t = state.t, W = 720, H = 210, L = 46, R = 8, n = t + 1, at = i => L + (W - L - R) * (i + 0.5) / n;
    const part = Array.from(current.product, (v, i) => Math.sign(v) * current.share[i]), top = most(part);
    $("h-step").textContent = x.separable ? "This position as a gradient step" : "What this position reads";
    $("step-note").innerHTML = x.separable
      ? `One step of weighted, preconditioned gradient descent from zero: features k<sub>i</sub>, targets v<sub>i</sub>, weights <b>ω<sub>i</sub> = Γ</b> (line${x.channels > 1 ? "; mean over key channels" : ""}). Bars: each token's share of the output, |attention|·‖v‖, <b>blue</b> added, <b>orange</b> subtracted.`
      : `The delta rule is one gradient step for each token, so it has no single weights ω. Line: Γ, the gates alone. Bars: each token's share of the output, |attention|·‖v‖, blue added, orange subtracted.`;
    const half = H / 2, bars = sign => part.map((v, i) => v * sign > 0 && Number.isFinite(v) ? `M${at(i).toFixed(1)} ${half + 62}v${(-v / top * 40).toFixed(1)}` : "").join("");
    const thick = Math.max(1, Math.min(14, (W - L - R) / n - 1)).toFixed(1), highest = current.gates ? most(current.gates) : 1;
    const line = current.gates ? path(Array.from(current.gates, (v, i) => [at(i), half - 10 - v / highest * (half - 22)])) : "";
    $("step").innerHTML = `<svg viewBox="0 0 ${W} ${H + 18}" role="img" aria-label="Weights and contributions of the tokens before position ${t}">
      ${current.gates ? `<line class="axis" x1="${L}" x2="${W - R}" y1="${half - 10}" y2="${half - 10}"/><path class="line" d="${line}"/>${n === 1 ? `<circle cx="${at(0)}" cy="12" r="3" fill="var(--accent)"/>` : ""}
      <text x="${L - 6}" y="16" text-anchor="end">${number(highest)}</text><text x="${L - 6}" y="${half - 7}" text-anchor="end">0</text><text x="0" y="${half / 2 + 4}">${x.separable ? "ω" : "Γ"}</text>` : ""}
      <line class="axis" x1="${L}" x2="${W - R}" y1="${half + 62}" y2="${half + 62}"/>
      <path class="more" stroke-width="${thick}" d="${bars(1)}"/><path class="less" stroke-width="${thick}" d="${bars(-1)}"/>
      <text x="${L - 6}" y="${half + 26}" text-anchor="end">${(100 * top).toFixed(0)}%</text><text x="0" y="${half + 66}">share</text>
      <text x="${L}" y="${H + 16}">0</text><text x="${W - R}" y="${H + 16}" text-anchor="end">${t}</text><text x="${W / 2}" y="${H + 16}" text-anchor="middle">token</text></svg>`;
    $("step").firstChild.onmousemove = event => {
      const r = event.currentTarget.getBoundingClientRect(), i = Math.floor(((event.clientX - r.left) / r.width * W - L) / (W - L - R) * n);
      if (i >= 0 && i <= t) tip(describe(model().tokens, t, i, current) + `\nshare of the output: ${percent(current.share[i], 1)}`, event);
    };
    $("step").firstChild.onmouseleave = untip;
    const columns = lens.quantities(x), SHORT = { gates: "Γ", turned: "Γ cos φ", similarity: "similarity", kept: "before erasing", product: "attention", erased: "erased" };
    const order = part.map((v, i) => i).sort((a, b) => Math.abs(part[b]) - Math.abs(part[a])).slice(0, 6);
    $("largest").innerHTML = `<div class="across"><table><thead><tr><th class="text">largest contributions</th><th>position</th><th>age</th>${columns.map(c => `<th>${c === "gates" && x.separable ? "ω" : SHORT[c]}</th>`).join("")}<th>share</th></tr></thead><tbody>` +
      order.map(i => `<tr><td class="text">${escape(shown(i))}</td><td>${i}</td><td>${t - i}</td>${columns.map(c => `<td>${number(current[c][i])}</td>`).join("")}<td>${percent(Math.abs(part[i]), 1)}</td></tr>`).join("") + "</tbody></table></div>";
  }
  function drawMemory() {
    const W = 460, H = 250, L = 40, B = 34, layers = model().layers, tallest = Math.max(2, most(layers.flatMap(l => l.summary.map(s => s.memory_length))));
    const y = v => H - B - (H - B - 14) * Math.log1p(v) / Math.log1p(tallest), places = [...layers, ...model().not_gated].sort((a, b) => a.layer - b.layer), at = i => L + (W - L - 12) * (places.indexOf(layers[i]) + 0.5) / places.length;
    const ticks = [0, 1, 3, 10, 30, 100, 300, 1000].filter(v => v <= tallest);
    const dots = layers.flatMap((l, i) => l.summary.map((s, h) => {
      const spread = l.summary.length > 1 ? (h / (l.summary.length - 1) - 0.5) * Math.min(26, 0.6 * (W - L) / places.length) : 0;
      const chosen = i === state.layer && h === state.head;
      return unknown(s.memory_length) ? [chosen, ""] : [chosen, `<circle class="head${chosen ? " chosen" : ""}" data-l="${i}" data-h="${h}" cx="${(at(i) + spread).toFixed(1)}" cy="${y(s.memory_length).toFixed(1)}" r="${chosen ? 6 : 4}"/>`];
    })).sort((a, b) => a[0] - b[0]).map(d => d[1]).join("");
    const median = layers.map(l => l.summary.map(s => s.memory_length ?? NaN).sort((a, b) => a - b)).map(s => (s[(s.length - 1) >> 1] + s[s.length >> 1]) / 2);
    const every = Math.ceil(places.length / 12), slot = i => L + (W - L - 12) * (i + 0.5) / places.length;
    $("memory").innerHTML = `<svg viewBox="0 0 ${W} ${H}" role="img" aria-label="Memory length of every head over layers; the table of heads has the numbers">
      ${ticks.map(v => `<line class="axis" x1="${L}" x2="${W - 8}" y1="${y(v)}" y2="${y(v)}"/><text x="${L - 6}" y="${y(v) + 4}" text-anchor="end">${v}</text>`).join("")}
      ${places.map((l, i) => i % every ? "" : `<text x="${slot(i)}" y="${H - B + 16}" text-anchor="middle">${l.layer}</text>`).join("")}
      ${places.map((l, i) => l.kind ? `<rect class="ungated" x="${slot(i) - 5}" width="10" y="14" height="${H - B - 14}"><title>layer ${l.layer}: ${escape(l.kind)}, not gated</title></rect>` : "").join("")}
      <text x="${(W + L) / 2}" y="${H - 2}" text-anchor="middle">layer (line: median${model().not_gated.length ? "; grey: attention, not gated" : ""})</text>
      <path class="line" style="opacity:.45" d="${path(median.map((v, i) => [at(i), y(v)]))}"/>${dots}</svg>`;
    for (const dot of $("memory").querySelectorAll(".head")) {
      const l = layers[dot.dataset.l], s = l.summary[dot.dataset.h];
      dot.onmousemove = event => tip(`layer ${l.layer}, head ${l.heads[dot.dataset.h]}\nmemory length: ${number(s.memory_length)} tokens\nhalf-life: ${number(s.half_life)}`, event);
      dot.onmouseleave = untip;
      dot.onclick = () => choose({ layer: +dot.dataset.l, head: +dot.dataset.h });
    }
  }
  function drawTables() {
    const l = layer();
    $("heads-note").textContent = `Means over up to 64 queries, of the gates alone, in float64. ` + (l.heads.length < l.of ? `${l.heads.length} of ${l.of} heads, from the fastest to forget to the slowest.` : "")
      + (l.pairs ? " Turn: what rotations leave of the gates' weight, with its sign; reversed: the share of the weight that they make negative." : "")
      + (l.apart ? " Erasing: the mean cosine of the key that is read to erase, and of the one along which it is erased, with the key that is written." : "")
      + (l.separable ? "" : " Gates alone are not this layer's weights: the delta rule erases by key as well.");
    const more = [
      ...(l.pairs ? [{ title: "turn", of: s => percent(s.turn, 1) }, { title: "reversed", of: s => percent(s.negative, 1) }] : []),
      ...(l.apart ? [{ title: "erasing: read", of: s => number(s.erase_query) }, { title: "erased along", of: s => number(s.erase_key) }] : []),
      ...overview.columns(model()),
    ];
    $("heads").innerHTML = `<thead><tr><th>head</th><th>memory length</th><th>half-life</th><th>last ${l.last}</th><th>entropy</th><th>mass</th>${more.map(column => `<th>${column.title}</th>`).join("")}<th class="text">closes most at</th></tr></thead><tbody>` +
      l.summary.map((s, h) => `<tr class="${h === state.head ? "chosen" : ""}"><td><button type="button" data-h="${h}" aria-label="Choose head ${l.heads[h]}">${l.heads[h]}</button></td><td>${number(s.memory_length)}</td><td>${number(s.half_life)}</td>
      <td>${percent(s.last, 1)}</td><td>${number(s.entropy)}</td><td>${number(s.mass)}</td>${more.map(column => `<td>${column.of(s)}</td>`).join("")}<td class="text">${s.closing.map(i => escape(shown(i))).join(" · ") || "–"}</td></tr>`).join("") + "</tbody>";
    for (const button of $("heads").querySelectorAll("button")) button.onclick = () => choose({ head: +button.dataset.h });
    const rank = m => fails(m) ? (unknown(m.reconstruction.error) || unknown(m.reconstruction.lens) ? 0 : 1) : unusual(m) ? 2 : 3, every = model().layers.map((m, i) => [m, i]).sort((a, b) => rank(a[0]) - rank(b[0]) || a[1] - b[1]);
    $("proof").innerHTML = `<thead><tr><th>layer</th><th></th><th class="text">kind</th><th>lens</th><th>own rounding</th><th>explained</th></tr></thead><tbody>` + every.map(([m, i]) =>
      `<tr class="${i === state.layer ? "chosen" : ""}"><td><button type="button" data-l="${i}" aria-label="Choose layer ${m.layer}">${m.layer}</button></td><td class="${fails(m) ? "fail" : "pass"}">${fails(m) ? "✗" : "✓"}</td>
      <td class="text" title="${escape(m.module)}">${escape(m.architecture)}${reason(m) ? `<span class="why">${escape(reason(m))}</span>` : ""}</td><td>${number(m.reconstruction.lens)}</td><td>${number(m.reconstruction.error)}</td><td>${number(m.reconstruction.tolerance)}</td></tr>`).join("")
      + model().not_gated.map(m => `<tr class="ungated"><td>${m.layer}</td><td></td><td class="text" title="${escape(m.module)}">${escape(m.kind)}</td><td class="text" colspan="3">attention: it has no gates</td></tr>`).join("") + "</tbody>";
    for (const button of $("proof").querySelectorAll("button")) button.onclick = () => choose({ layer: +button.dataset.l });
  }

  // Choosing
  function fill(select, entries, value) {
    select.innerHTML = entries.map(([v, text]) => `<option value="${v}"${v === "" ? " disabled" : ""}>${escape(text)}</option>`).join("");
    select.value = value;
  }
  const longest = l => l.summary.reduce((best, s, h) => s.memory_length > l.summary[best].memory_length ? h : best, 0);
  async function choose(change) {
    const mine = ++asked;
    if ("model" in change) change = { layer: lens.models[change.model].opens, t: lens.models[change.model].position, beside: first(change.model), ...change };
    Object.assign(state, change);
    if ("layer" in change && !("head" in change)) state.head = longest(layer());
    state.near = null;
    fillAll(layer());
    const [one, other] = [await open(model(), layer(), state.head, mine), await openBeside(mine)];
    if (mine !== asked) return;
    ({ xs, x, whole } = one);
    there = other;
    moved = await lens.moved(one, there);
    if ("beside" in change) state.besideT = lens.models[state.beside]?.position ?? 0;
    fillQuantities();
    $("position").max = x.T - 1;
    drawAll();
    document.body.dataset.ready = String(mine);
  }
  async function open(of, l, head, mine) {                        // a head, or the mean of all
    const heads = head < 0 ? l.heads.map((_, h) => h) : [head], read = await Promise.all(heads.map(h => lens.operands(l, h)));
    const matrices = await lens.readAll(read, done => {
      $("said").textContent = $("maps-note").textContent = `${done} of ${heads.length} heads averaged …`;
      return mine === asked;
    });
    return { model: of, layer: l, head, xs: read, x: read[0], whole: matrices };
  }
  async function openBeside(mine) {                               // the same head in the view beside this one
    const other = lens.models[state.beside], found = other && beside.find(other, layer(), state.head);
    return found ? open(other, found.layer, found.head, mine) : null;
  }
  function drawAll() {
    drawHeader(); drawMaps(); drawMemory(); drawTables();
    overview.show(model(), state, choose);
    move(state.t, null);
    showBeside();
  }
  function showBeside() {
    if (there) beside.show(here(), there, state.quantity, moved, t => move(t, null), moveBeside);
    else beside.lack(lens.models[state.beside]);
  }
  function fillAll(l) {
    fill($("model"), lens.models.map((m, i) => [i, titled(m)]), state.model);
    beside.fill($("beside"), model(), state.beside);
    const others = model().not_gated.map(m => [m.layer, ["", `${m.layer}: ${m.kind}, not gated`]]);
    const ours = model().layers.map((m, i) => [m.layer, [i, `${fails(m) ? "✗ " : ""}${m.layer}: ${m.architecture}`]]);
    fill($("layer"), [...ours, ...others].sort((a, b) => a[0] - b[0]).map(entry => entry[1]), state.layer);
    fill($("head"), [...l.heads.map((h, i) => [i, `${h}: memory ${number(l.summary[i].memory_length)}`]), ...(l.heads.length > 1 ? [[-1, `mean of ${l.heads.length} heads`]] : [])], state.head);
  }
  function fillQuantities() {
    const listed = ["product", ...lens.quantities(x).filter(n => n !== "product")].map(n => [n, NAMES[n]]);
    const found = [...listed, ...(x.channels ? [["closed", "how far gates close"]] : [])];
    if (!found.some(q => q[0] === state.quantity)) state.quantity = "product";
    fill($("quantity"), found, state.quantity);
  }
  function save(blob, name) {
    const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }
  function moveBeside(t) {
    if (beside.sameText(model(), there.model)) return move(t, null);
    state.besideT = Math.max(0, Math.min(there.x.T - 1, t));
    followBeside();
  }
  function followBeside() {
    if (!there) return;
    there.t = beside.sameText(model(), there.model) ? state.t : state.besideT;
    there.current = lens.read(there.xs, there.t);
    if ($("map-beside")) beside.follow(here(), there, state.quantity, moved);
  }
  function move(t, near) {
    state.t = Math.max(0, Math.min(x.T - 1, t));
    state.near = near === null ? null : Math.max(0, Math.min(state.t, near));
    current = lens.read(xs, state.t);
    $("position").value = state.t;
    $("where").textContent = `${state.t}, “${shown(state.t)}”`;
    drawStrip(); drawNext(); drawStep(); cross(); followBeside();
    $("said").textContent = state.near === null ? `Query ${shown(state.t)} at ${state.t}` : describe(model().tokens, state.t, state.near, current);
  }
  $("csv").onclick = () => {
    const columns = Object.fromEntries([...lens.quantities(x), "share"].map(n => [n, current[n]]));
    save(lens.csv(model().tokens, columns), `${named()}-query${state.t}.csv`);
  };
  $("controls").onsubmit = event => event.preventDefault();
  for (const name of ["model", "layer", "head", "beside"]) $(name).onchange = event => choose({ [name]: +event.target.value });
  $("position").oninput = event => move(+event.target.value, null);
  $("quantity").onchange = event => { state.quantity = event.target.value; drawStrip(); showBeside(); };
  $("scale").onchange = drawAll;
  document.onkeydown = event => {                                 // without a click first: wherever keys do nothing else
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key], target = event.target;
    if (!step || event.defaultPrevented || event.ctrlKey || event.altKey || event.metaKey || event.shiftKey || !x) return;
    if (target instanceof Element && target.closest("select, input, .scroll")) return;
    event.preventDefault();
    move(state.t + step, null);
  };
  $("strip").onclick = event => { if (event.target.dataset.i) move(+event.target.dataset.i, null); };
  $("strip").onmousemove = event => {
    const i = event.target.dataset.i;
    if (i === undefined) return untip();
    const closes = closed(+i);
    tip(describe(model().tokens, state.t, +i, current) + (closes === null ? "" : `\nits gates close by: ${number(closes)}`), event);
  };
  $("strip").onmouseleave = untip;
  function recolour() {                                           // paper is light
    draw.prepare(dark.matches && !paper.matches);
    if (x) drawAll();
  }
  dark.onchange = paper.onchange = recolour;
  recolour();
  choose({ model: 0 });
})();
