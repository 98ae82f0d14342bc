"use strict";
// Two views of one model beside each other: before and after a change, or two texts.
const beside = (() => {
  const { $, NAMES, escape, unknown, percent, number, colour, clean, most, largest, tip, untip, describe, strip, paint, map, legend, cross, pointed, path, nextTokens } = draw;
  const named = model => model.label || "as it is";

  // Which views can be chosen, and where the chosen layer and head are in one
  const partners = model => lens.models.map((m, i) => [m, i]).filter(([m]) => m !== model && m.name === model.name);
  const sameText = (a, b) => a.tokens.length === b.tokens.length && a.tokens.every((token, i) => token === b.tokens[i]);
  function find(model, l, head) {                                 // null where the view lacks the layer or the head
    const layer = model.layers.find(m => m.layer === l.layer), place = head < 0 ? -1 : layer?.heads.indexOf(l.heads[head]);
    return !layer || head >= 0 && place < 0 ? null : { layer, head: place };
  }
  function fill(select, model, chosen) {
    const found = partners(model).map(([m, i]) => `<option value="${i}">${escape(named(m))}</option>`);
    select.innerHTML = `<option value="-1">nothing</option>${found.join("")}`;
    select.value = chosen;
    select.closest("label").hidden = !found.length;
  }

  // What is said of both
  const mean = values => values.reduce((sum, v) => sum + v, 0) / values.length;
  function length(one) {
    const all = one.head < 0 ? one.layer.summary : [one.layer.summary[one.head]];
    return all.some(s => unknown(s.memory_length)) ? null : mean(all.map(s => s.memory_length));
  }
  function loss(model) {
    const known = (model.losses ?? []).filter(v => !unknown(v));
    return known.length ? mean(known) : null;
  }
  const both = (title, a, b, unit) => unknown(a) || unknown(b) ? [] : [`${title} ${number(a)} → ${number(b)} ${unit}`];
  function say(here, there, moved) {
    const parts = [...both("memory length of the gates", length(here), length(there), "tokens"), ...both("loss", loss(here.model), loss(there.model), "nats per token")];
    if (moved) parts.push(`the change moves this head's output by ${percent(Math.sqrt(mean(Array.from(moved, v => v * v))), 1)}`);
    $("h-beside").textContent = `Beside it: ${named(there.model)}`;
    $("beside-note").textContent = parts.join(" · ");
    const [a, b] = [here, there].map(one => one.model.predictions?.[one.t]);
    $("beside-next").innerHTML = !a || !b ? "" : `Next token, ${escape(named(here.model))}: ${nextTokens(a)}<br>Next token, ${escape(named(there.model))}: ${nextTokens(b)}`;
  }

  // Its text, maps, and how far outputs move
  function drawText(here, there, q) {
    const top = Math.max(most(here.current[q]), most(there.current[q]));
    strip($("beside-strip"), there.model.tokens, there.t, null, there.model.tokens.map((_, i) => i <= there.t ? colour(there.current[q][i], top) : null));
  }
  function drawMaps(here, there, q) {
    const same = sameText(here.model, there.model), tokens = there.model.tokens, T = there.x.T;
    const apart = same ? there.whole[q].map((v, i) => v - here.whole[q][i]) : null;
    const top = Math.max(largest(here.whole[q]), largest(there.whole[q]));
    $("beside-maps").style.setProperty("--maps", same ? 3 : 2);
    $("beside-maps").innerHTML = map("map-here", `<b>${escape(named(here.model))}</b>: ${NAMES[q]}`, NAMES[q], here.model.tokens)
      + map("map-beside", `<b>${escape(named(there.model))}</b>: ${NAMES[q]}`, NAMES[q], tokens)
      + (same ? map("map-apart", `<b>Difference</b>: ${escape(named(there.model))} − ${escape(named(here.model))}`, "difference", tokens) : "");
    put("map-here", here.whole[q], here.x.T, top, q !== "gates");
    put("map-beside", there.whole[q], T, top, q !== "gates");
    if (apart) put("map-apart", apart, T, largest(apart), true);
  }
  function put(id, values, T, top, signed) {
    paint($(id), values, T, top);
    legend($(id).closest("figure").querySelector(".legend"), top, signed);
  }
  function drawMoved(moved, tokens, t) {
    const box = $("beside-moved"), W = 720, H = 110, L = 46, at = i => L + (W - L - 8) * (i + 0.5) / tokens.length;
    box.hidden = !moved;
    if (!moved) return;
    const top = most(moved), y = v => 90 - v / top * 78;
    box.innerHTML = `<p>How far the change moves this head's output at each token, of the output's root mean square.</p><svg viewBox="0 0 ${W} ${H}" role="img" aria-label="Change of the output at every token">
      <line class="axis" x1="${L}" x2="${W - 8}" y1="90" y2="90"/><line class="mark" x1="${at(t)}" x2="${at(t)}" y1="8" y2="90"/><path class="line" d="${path(Array.from(moved, (v, i) => [at(i), y(v)]))}"/>
      <text x="${L - 6}" y="16" text-anchor="end">${percent(top, top < 0.1 ? 1 : 0)}</text><text x="${L - 6}" y="94" text-anchor="end">0</text><text x="${L}" y="106">0</text><text x="${W - 8}" y="106" text-anchor="end">${tokens.length - 1}</text></svg>`;
    box.querySelector("svg").onmousemove = event => {
      const r = event.currentTarget.getBoundingClientRect(), i = Math.floor(((event.clientX - r.left) / r.width * W - L) / (W - L - 8) * tokens.length);
      if (i >= 0 && i < tokens.length) tip(`“${clean(tokens[i])}” at ${i}\noutput moved by ${percent(moved[i], 2)}`, event);
    };
    box.querySelector("svg").onmouseleave = untip;
  }
  const shownBy = (canvas, here, there) => canvas.id === "map-here" ? here : there;
  function listen(here, there, moveHere, move) {
    for (const canvas of $("beside-maps").querySelectorAll("canvas")) {
      const one = shownBy(canvas, here, there), go = one === here ? moveHere : move;
      canvas.onmousemove = event => {
        const [t, i] = pointed(canvas, one.x.T, event);
        tip(describe(one.model.tokens, t, i, lens.rowOf(one.whole, one.x.T, t)), event);
      };
      canvas.onmouseleave = untip;
      canvas.onclick = event => go(pointed(canvas, one.x.T, event)[0]);
      canvas.onkeydown = event => arrow(event, one.t, go);
    }
    const text = $("beside-strip");
    text.onmousemove = event => {
      const i = event.target.dataset.i;
      return i === undefined ? untip() : tip(describe(there.model.tokens, there.t, +i, there.current), event);
    };
    text.onmouseleave = untip;
    text.onclick = event => { if (event.target.dataset.i) move(+event.target.dataset.i); };
    text.onkeydown = event => arrow(event, there.t, move);
  }
  function arrow(event, t, move) {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { event.preventDefault(); move(t + by); }
  }
  const quantity = (q, there) => q in there.whole ? q : "product";
  function show(here, there, q, moved, moveHere, move) {                    // when something is chosen
    $("beside-card").hidden = false;
    drawMaps(here, there, quantity(q, there));
    listen(here, there, moveHere, move);
    follow(here, there, q, moved);
  }
  function lack(model) {                                          // the view that was chosen has no such head; or none was
    $("beside-card").hidden = !model;
    for (const part of ["next", "strip", "maps", "moved"]) $("beside-" + part).innerHTML = "";
    $("beside-strip").shows = null;
    if (!model) return;
    $("h-beside").textContent = `Beside it: ${named(model)}`;
    $("beside-note").textContent = "The page does not keep this head of it.";
  }
  function follow(here, there, q, moved) {                        // when a query moves
    say(here, there, moved);
    drawText(here, there, quantity(q, there));
    drawMoved(moved, there.model.tokens, there.t);
    for (const canvas of $("beside-maps").querySelectorAll("canvas")) {
      const one = shownBy(canvas, here, there);
      cross(canvas, one.x.T, one.t, one.t);
    }
  }
  return { fill, find, sameText, show, lack, follow, partners };
})();
