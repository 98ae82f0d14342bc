"use strict";
// All heads of all layers at a glance: a row for each layer, a cell for each head, coloured by what is asked of them.
const overview = (() => {
  const { $, escape, unknown, number, percent, shade, on, most, legend, tip, untip } = draw;
  const TOLD = 2;                                                 // standard errors from which a worth is shown
  const WORTH = {
    fixed: "worth of the gate over a fixed decay", no_gate: "worth of the gate over none", no_erase: "worth of erasing", ablated: "worth of the head", alone: "worth of the gate, all others fixed",
  };
  const pair = ([mean, error]) => `${number(mean)} ± ${number(error)}`, rise = both => `${pair(both)} nats per token`;
  const errors = both => !both || unknown(both[0]) ? null : both[0] === 0 ? 0 : both[0] / both[1];

  // What can be asked: a value of a head's summary, how it is written, and whether small ones stay blank
  function measures(model) {
    const heads = model.layers.flatMap(l => l.summary), some = of => heads.some(s => !unknown(of(s)));
    const worths = Object.keys(WORTH).map(n => ({ name: n, title: `${WORTH[n]}, standard errors`, of: s => errors(s.worth?.[n]), least: TOLD }));
    return [
      { name: "memory_length", title: "memory length, tokens", of: s => s.memory_length, least: 0 },
      { name: "mean", title: `memory length, mean over ${model.texts} texts`, of: s => s.corpus?.[0], least: 0 },
      { name: "spread", title: `memory length, spread over ${model.texts} texts`, of: s => s.corpus?.[1], least: 0 },
      { name: "moved", title: "how far the change moves the output, %", of: s => unknown(s.moved) ? null : 100 * s.moved, least: 0 },
      ...worths,
    ].filter(m => some(m.of));
  }
  function told(s) {                                              // all that is known of a head
    const lines = [`memory length: ${number(s.memory_length)} tokens, half-life: ${number(s.half_life)}`];
    if (s.corpus) lines.push(`over texts: ${number(s.corpus[0])}, spread ${number(s.corpus[1])}`);
    if (!unknown(s.moved)) lines.push(`the change moves its output by ${percent(s.moved, 1)}`);
    for (const n in s.worth ?? {}) if (WORTH[n] && s.worth[n]) lines.push(`${WORTH[n]}: ${rise(s.worth[n])}`);
    return lines.join("\n");
  }

  function columns(model) {                                       // the same in words, for the table of heads
    const of = { mean: s => number(s.corpus?.[0]), spread: s => number(s.corpus?.[1]), moved: s => percent(s.moved, 1) };
    const title = { mean: `over ${model.texts} texts`, spread: "spread", moved: "output moved" };
    return measures(model).slice(1).map(m => ({ title: title[m.name] ?? WORTH[m.name], of: of[m.name] ?? (s => s.worth?.[m.name] ? pair(s.worth[m.name]) : "–") }));
  }

  const short = v => v !== 0 && Math.abs(v) < 0.01 ? "<.01" : number(Number(v.toPrecision(2)));
  function row(l, layer, measure, chosen) {
    const cells = l.summary.map((s, h) => {
      const v = measure.of(s), blank = unknown(v) || Math.abs(v) < measure.least;
      return `<i data-l="${layer}" data-h="${h}" class="${chosen.layer === layer && chosen.head === h ? "chosen" : ""}" data-v="${blank ? "" : v}">${blank ? "" : short(v)}</i>`;
    });
    return `<b>${l.layer}</b><div class="heads">${cells.join("")}</div>`;
  }
  const ungated = l => `<b>${l.layer}</b><div class="none">${escape(l.kind)}: not gated</div>`;
  function fill(box, model, measure, chosen) {
    const shown = model.layers.flatMap(l => l.summary.map(measure.of)).filter(v => !unknown(v) && Math.abs(v) >= measure.least);
    const largest = most(shown), top = Math.log1p(largest), widest = Math.max(...model.layers.map(l => l.summary.length));
    const rows = [...model.layers.map((l, i) => [l.layer, row(l, i, measure, chosen)]), ...model.not_gated.map(l => [l.layer, ungated(l)])];
    legend($("overview-legend"), largest, shown.some(v => v < 0));
    box.className = widest > 16 ? "many" : widest > 8 ? "some" : "";
    box.style.setProperty("--heads", widest);
    box.innerHTML = rows.sort((a, b) => a[0] - b[0]).map(r => r[1]).join("");
    for (const cell of box.querySelectorAll("i")) if (cell.dataset.v) on(cell, shade(+cell.dataset.v, Math.min(1, Math.log1p(Math.abs(+cell.dataset.v)) / top)));
  }
  function note(model, measure) {
    const whole = model.together?.[measure.name];
    return measure.least ? `A cell is blank where the worth is below ${TOLD} of its standard errors.` + (whole ? ` All heads together: ${rise(whole)}.` : "")
      : "";
  }
  function show(model, chosen, choose) {
    const box = $("overview"), asked = $("measure"), known = measures(model), measure = known.find(m => m.name === asked.value) ?? known[0];
    asked.innerHTML = known.map(m => `<option value="${m.name}">${escape(m.title)}</option>`).join("");
    asked.value = measure.name;
    asked.onchange = () => show(model, chosen, choose);
    $("overview-note").textContent = `A row for each layer, a cell for each head${model.layers.some(l => l.heads.length < l.of) ? " that is kept" : ""}. Click one to see it below. ${note(model, measure)}`;
    fill(box, model, measure, chosen);
    box.onclick = event => { if (event.target.dataset.l) choose({ layer: +event.target.dataset.l, head: +event.target.dataset.h }); };
    box.onmousemove = event => {
      const { l, h } = event.target.dataset;
      if (l === undefined) return untip();
      tip(`layer ${model.layers[l].layer}, head ${model.layers[l].heads[h]}\n${told(model.layers[l].summary[h])}`, event);
    };
    box.onmouseleave = untip;
    box.onkeydown = event => step(event, model, chosen, choose);
  }
  function step(event, model, chosen, choose) {
    const by = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!by) return;
    event.preventDefault();
    const layer = Math.max(0, Math.min(model.layers.length - 1, chosen.layer + by[0]));
    const head = Math.max(0, Math.min(model.layers[layer].heads.length - 1, Math.max(0, chosen.head) + by[1]));
    if (layer !== chosen.layer || head !== chosen.head) choose({ layer, head });
  }
  return { show, columns };
})();
