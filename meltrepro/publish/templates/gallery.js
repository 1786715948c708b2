"use strict";
// Sorts and filters the rows that stand on the page already, and draws two of their figures against each other.
// Nothing is made of markup: every text goes through textContent.
(() => {
  const SVG = "http://www.w3.org/2000/svg", MOST_COLOURS = 7;
  const controls = document.getElementById("controls");
  const bodies = [...document.querySelectorAll("#rows tbody:not(#virtual-head)")];
  const rows = bodies.flatMap(body => [...body.rows].filter(row => row.dataset.row).map(row => ({
    element: row, body, virtual: body.id === "virtual", ...JSON.parse(row.dataset.row),
  })));
  const filters = [...controls.querySelectorAll("select[data-filter]")];
  const byWord = new Intl.Collator("en", {numeric: true}).compare;
  const pick = id => document.getElementById(id);
  const text = value => value === null || value === undefined ? "" : String(value);

  // An engine has one colour, whatever else is shown.
  const engines = [...new Set(rows.map(row => text(row.f.engine)))].sort();
  const colour = name => `s${engines.indexOf(name) % MOST_COLOURS}`;

  function fill(select) {
    const values = [...new Set(rows.map(row => text(row.f[select.dataset.filter])))].sort(byWord);
    for (const value of values) select.add(new Option(value || "none", `=${value}`));
    select.closest("label").hidden = values.length < 2;
  }

  function chosen(row) {
    return filters.every(select => !select.value || `=${text(row.f[select.dataset.filter])}` === select.value);
  }

  function sort() {
    const by = pick("sort").value, down = pick("down").checked ? -1 : 1;
    const key = row => by in row.v ? row.v[by] : text(row.f[by]);
    const missing = value => value === null || value === undefined || value === "";
    const order = (a, b) => {
      const [x, y] = [key(a), key(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return down * (typeof x === "number" && typeof y === "number" ? x - y : byWord(text(x), text(y)));
    };
    // Each body by itself: a virtual device has no place among real ones.
    for (const body of bodies) body.append(...rows.filter(row => row.body === body).sort(order).map(row => row.element));
    for (const button of document.querySelectorAll("#rows thead button")) {
      const head = button.closest("th");
      if (button.dataset.sort === by) head.setAttribute("aria-sort", down < 0 ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  function node(parent, tag, attributes, content) {
    const made = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, typeof value === "number" ? Math.round(value * 10) / 10 : value);
    if (content !== undefined) made.textContent = content;
    parent.append(made);
    return made;
  }

  function shown(value) {
    if (value === 0) return "0";
    const size = Math.abs(value);
    return size >= 1e6 || size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(4)));
  }

  function scale(values, from, to) {
    const least = values.reduce((a, b) => Math.min(a, b));
    let low = least, high = values.reduce((a, b) => Math.max(a, b));
    const log = low > 0 && high / low > 20;
    const way = log ? Math.log10 : v => v, back = log ? v => 10 ** v : v => v;
    [low, high] = [way(low), way(high)];
    const room = (high - low) * 0.06 || Math.abs(high) * 0.1 || 1;
    [low, high] = [low - room, high + room];
    if (!log && least >= 0) low = Math.max(low, 0);
    let ticks = [];
    if (log) {
      const spots = high - low > 2.5 ? [1] : [1, 2, 5];
      for (let e = Math.floor(low); e <= Math.ceil(high); e++) ticks.push(...spots.map(m => m * 10 ** e));
      const apart = Math.ceil(ticks.length / 9);
      if (spots.length === 1) ticks = ticks.filter((_, i) => i % apart === 0);
    } else {
      const rough = (high - low) / 6, size = 10 ** Math.floor(Math.log10(rough));
      const step = [1, 2, 5, 10].map(m => m * size).find(m => m >= rough);
      for (let i = Math.ceil(low / step); i * step <= high; i++) ticks.push(i * step);
    }
    return {log, at: v => from + (way(v) - low) / (high - low) * (to - from),
      ticks: ticks.filter(v => way(v) >= low - 1e-9 && way(v) <= high + 1e-9), back};
  }

  function draw(figure, some, x, y) {
    const place = figure.querySelector(".drawing");
    place.replaceChildren();
    const points = some.filter(row => typeof row.v[x.value] === "number" && typeof row.v[y.value] === "number");
    figure.hidden = !some.length;
    figure.querySelector(".none").hidden = points.length > 0;
    place.hidden = !points.length;
    if (!points.length) return;
    const narrow = matchMedia("(max-width: 44.9rem)").matches, width = narrow ? 350 : 820, height = narrow ? 330 : 430;
    const names = [...new Set(points.map(row => text(row.f.engine)))].sort();
    const perLine = narrow ? 1 : 3, top = 16 + Math.ceil(Math.min(names.length, 24) / perLine) * 19, left = 62, bottom = height - 44;
    const root = node(place, "svg", {class: "fig", viewBox: `0 0 ${width} ${height}`, role: "img",
      "aria-label": `${y.selectedOptions[0].text} against ${x.selectedOptions[0].text}, ${points.length} cells`});
    names.slice(0, 24).forEach((name, i) => {
      const at = [8 + (i % perLine) * (width - 16) / perLine, 12 + Math.floor(i / perLine) * 19];
      node(root, "circle", {class: `m ${colour(name)}`, cx: at[0], cy: at[1], r: 4.5});
      node(root, "text", {x: at[0] + 10, y: at[1] + 4}, name.length > 36 ? `${name.slice(0, 35)}…` : name);
    });
    const xs = scale(points.map(row => row.v[x.value]), left, width - 16), ys = scale(points.map(row => row.v[y.value]), bottom, top);
    for (const value of xs.ticks) {
      node(root, "line", {class: "grid", x1: xs.at(value), x2: xs.at(value), y1: top, y2: bottom});
      node(root, "text", {class: "tick", x: xs.at(value), y: bottom + 15, "text-anchor": "middle"}, shown(value));
    }
    for (const value of ys.ticks) {
      node(root, "line", {class: "grid", x1: left, x2: width - 16, y1: ys.at(value), y2: ys.at(value)});
      node(root, "text", {class: "tick", x: left - 6, y: ys.at(value) + 4, "text-anchor": "end"}, shown(value));
    }
    node(root, "line", {class: "axis", x1: left, x2: width - 16, y1: bottom, y2: bottom});
    node(root, "line", {class: "axis", x1: left, x2: left, y1: top, y2: bottom});
    node(root, "text", {class: "label", x: (left + width - 16) / 2, y: height - 8, "text-anchor": "middle"}, x.selectedOptions[0].text + (xs.log ? " (log)" : ""));
    const middle = (top + bottom) / 2;
    node(root, "text", {class: "label", x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})`}, y.selectedOptions[0].text + (ys.log ? " (log)" : ""));
    const group = node(root, "g", {class: "loose"});
    for (const row of points) {
      const link = node(group, "a", {href: `#${row.element.id}`});
      const mark = node(link, "circle", {class: `mark m ${colour(text(row.f.engine))}`, cx: xs.at(row.v[x.value]), cy: ys.at(row.v[y.value]), r: 4.5});
      node(mark, "title", {}, `${row.f.model} ${row.f.quantization}, ${row.f.engine}, ${row.f.device}: ${shown(row.v[y.value])} ${y.selectedOptions[0].text}, ${shown(row.v[x.value])} ${x.selectedOptions[0].text}`);
    }
  }

  function update() {
    const visible = rows.filter(chosen);
    for (const row of rows) row.element.hidden = true;
    for (const row of visible) row.element.hidden = false;
    for (const body of bodies) body.hidden = !visible.some(row => row.body === body);
    const head = pick("virtual-head");
    if (head) head.hidden = pick("virtual").hidden;
    pick("count").textContent = `${visible.length} of ${rows.length} cells`;
    const believed = visible.filter(row => row.f.verdict === "VALID");
    for (const kind of ["real", "virtual"]) draw(pick(`figure-${kind}`), believed.filter(row => row.virtual === (kind === "virtual")), pick("x"), pick("y"));
  }

  filters.forEach(fill);
  for (const select of filters) select.addEventListener("change", update);
  for (const id of ["x", "y"]) pick(id).addEventListener("change", update);
  for (const id of ["sort", "down"]) pick(id).addEventListener("change", sort);
  for (const button of document.querySelectorAll("#rows thead button")) {
    button.addEventListener("click", () => {
      const same = pick("sort").value === button.dataset.sort;
      pick("down").checked = same ? !pick("down").checked : button.dataset.down === "1";
      pick("sort").value = button.dataset.sort;
      sort();
    });
  }
  pick("reset").addEventListener("click", () => { filters.forEach(select => { select.value = ""; }); update(); });
  matchMedia("(max-width: 44.9rem)").addEventListener("change", update);
  for (const element of document.querySelectorAll(".scripted")) element.hidden = false;
  sort();
  update();
})();
