// Draws the report's plots from the JSON in the page, and keeps plot, table and selected layout in step.
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const GIB = 2 ** 30;
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c6d31", "#7b68ee", "#7f7f7f"];
const state = { chosen: null, hidden: new Set() };

async function loadPlotly() {
  const packed = atob(document.getElementById("plotly-gzip").textContent.trim());
  const bytes = Uint8Array.from(packed, (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.appendChild(script);
}

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function style(layout) {
  const axis = { gridcolor: css("--grid"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
  const themed = {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: css("--fg"), family: "system-ui, sans-serif", size: NARROW ? 11 : 13 },
    margin: { l: 56, r: 16, t: 16, b: 48 },
    legend: { orientation: "h", y: -0.18, x: 0 },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--dim"), activecolor: css("--accent") },
    hoverlabel: { align: "left", bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--fg") } },
    ...layout,
  };
  themed.xaxis = { ...axis, ...(layout.xaxis || {}) };
  themed.yaxis = { ...axis, ...(layout.yaxis || {}) };
  return themed;
}

const NARROW = window.innerWidth < 640;
const CONFIG = {
  responsive: true, displaylogo: false, displayModeBar: NARROW ? false : "hover",
  modeBarButtonsToRemove: ["lasso2d", "select2d", "autoScale2d"],
};

function drawFigures() {
  for (const [id, figure] of Object.entries(data.figures)) {
    const node = document.getElementById(id);
    if (node) Plotly.react(node, figure.data, style(figure.layout), { ...CONFIG, displayModeBar: false });
  }
}

// --- the explorer: every kept layout as a point ------------------------------------------------------------------

const shown = (layout) => !state.hidden.has(layout.id);
const seconds = (s) => (s >= 1 ? s.toPrecision(3) + " s" : (s * 1e3).toPrecision(3) + " ms");
const gib = (b) => (b / GIB).toFixed(1) + " GiB";

function hover(layout) {
  const money = layout.usd ? `<br>$${layout.usd.toFixed(0)} per billion tokens` : "";
  const text = layout.text.replace(/(.{30,60}?), /g, "$1,<br>");
  return `<b>${layout.rank ? "#" + layout.rank + " " : ""}${text}</b><br>${seconds(layout.time)} a step, ` +
    `MFU ${(layout.mfu * 100).toFixed(1)}%<br>${gib(layout.memory)}${money}`;
}

function points(layouts, name, marker, extra) {
  return {
    type: "scatter", mode: "markers", name, x: layouts.map((l) => l.time), y: layouts.map((l) => l.memory / GIB),
    customdata: layouts.map((l) => l.id), hovertemplate: layouts.map((l) => hover(l) + "<extra></extra>"), marker, ...extra,
  };
}

function drawPareto() {
  const node = document.getElementById("pareto-plot");
  if (!node) return;
  const field = document.getElementById("colour").value;
  const kept = data.layouts.filter(shown);
  const values = [...new Set(data.layouts.map((l) => l[field]))].sort((a, b) => (a > b ? 1 : -1));
  const traces = values.map((value, i) =>
    points(kept.filter((l) => l[field] === value), `${field}=${value}`, { size: 8, opacity: 0.75, color: PALETTE[i % PALETTE.length] }));
  const front = kept.filter((l) => l.front).sort((a, b) => a.time - b.time);
  traces.push({
    type: "scatter", mode: "lines", name: "Pareto front", x: front.map((l) => l.time), y: front.map((l) => l.memory / GIB),
    line: { color: css("--fg"), width: 1.5, dash: "dot", shape: "hv" }, hoverinfo: "skip",
  });
  const top = kept.filter((l) => l.rank);
  traces.push(points(top, "the best", { size: 15, symbol: "star", color: css("--accent"), line: { color: css("--bg"), width: 1 } },
    { mode: "markers+text", text: top.map((l) => "#" + l.rank), textposition: top.map((l) => ["top left", "middle right", "bottom left"][l.rank % 3]) }));
  const chosen = data.layouts.filter((l) => l.id === state.chosen);
  traces.push(points(chosen, "selected", { size: 18, symbol: "circle-open", color: css("--bad"), line: { width: 2.5 } }, { hoverinfo: "skip" }));
  const line = (y, dash, text) => ({ shape: { type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, line: { dash, color: css("--bad"), width: 1 } },
    note: { xref: "paper", x: 0, xanchor: "left", y, yanchor: "bottom", text, showarrow: false, font: { color: css("--bad"), size: 11 } } });
  const limit = line(data.limit_bytes / GIB, "solid", "memory of a device");
  const most = Math.max(...kept.map((l) => l.memory), 0);
  const near = most > 0.6 * data.limit_bytes ? [limit] : [];
  Plotly.react(node, traces, style({
    height: NARROW ? 460 : 480,
    xaxis: { title: { text: "seconds a step" } }, yaxis: { title: { text: "GiB per device at the peak" }, rangemode: "tozero" },
    shapes: near.map((n) => n.shape), annotations: near.map((n) => n.note), hovermode: "closest",
  }), CONFIG);
  node.removeAllListeners("plotly_click");
  node.on("plotly_click", (event) => choose(event.points[0].customdata));
}

function applyFilters() {
  const wanted = [...document.querySelectorAll("#filters select[data-field]")].filter((s) => s.value !== "");
  state.hidden = new Set(data.layouts.filter((l) => wanted.some((s) => String(l[s.dataset.field]) !== s.value)).map((l) => l.id));
  for (const row of document.querySelectorAll("#layout-table tbody tr")) row.hidden = state.hidden.has(Number(row.dataset.layout));
  document.getElementById("shown").textContent = `${data.layouts.length - state.hidden.size} of ${data.layouts.length} layouts shown`;
  drawPareto();
}

function parts(values, form) {
  const total = Object.values(values).reduce((a, b) => a + b, 0);
  return Object.entries(values).filter(([, v]) => v > 0.005 * total).sort((a, b) => b[1] - a[1])
    .map(([name, v]) => `${name} ${form(v)}`).join(", ");
}

function choose(id) {
  const layout = data.layouts.find((l) => l.id === id);
  if (!layout) return;
  state.chosen = id;
  const panel = document.getElementById("selected");
  panel.replaceChildren();
  const add = (tag, text) => panel.appendChild(Object.assign(document.createElement(tag), { textContent: text }));
  add("h3", layout.text);
  const slower = layout.time / data.best_time - 1;
  add("p", `${seconds(layout.time)} a step, ${slower < 1e-6 ? "the best" : (slower * 100).toFixed(1) + "% slower than the best"}; ` +
    `MFU ${(layout.mfu * 100).toFixed(1)}%; ${gib(layout.memory)} of ${gib(data.limit_bytes)} per device.`);
  add("p", "Time: " + parts(layout.time_parts, seconds) + ".");
  add("p", "Memory: " + parts(layout.memory_parts, gib) + ".");
  for (const sentence of layout.words) add("p", sentence);
  for (const row of document.querySelectorAll("tr.chosen")) row.classList.remove("chosen");
  for (const row of document.querySelectorAll(`tr[data-layout="${id}"]`)) row.classList.add("chosen");
  drawPareto();
}

// --- tables ------------------------------------------------------------------------------------------------------

function sortTable(table, column) {
  const head = table.tHead.rows[0].cells[column];
  const ascending = head.getAttribute("aria-sort") !== "ascending";
  for (const cell of table.tHead.rows[0].cells) cell.setAttribute("aria-sort", "none");
  head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
  const value = (row) => row.cells[column].dataset.value;
  const numeric = head.classList.contains("num");
  const rows = [...table.tBodies[0].rows].sort((a, b) =>
    (numeric ? Number(value(a)) - Number(value(b)) : value(a).localeCompare(value(b))) * (ascending ? 1 : -1));
  table.tBodies[0].append(...rows);
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((cell, i) => cell.firstElementChild.addEventListener("click", () => sortTable(table, i)));
}
for (const row of document.querySelectorAll("tr[data-layout]")) {
  row.addEventListener("click", () => choose(Number(row.dataset.layout)));
  row.addEventListener("keydown", (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(Number(row.dataset.layout)); } });
}

// --- start -------------------------------------------------------------------------------------------------------

function draw() { drawFigures(); if (document.getElementById("filters")) applyFilters(); }

document.getElementById("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = dark === "dark" ? "light" : "dark";
  draw();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

loadPlotly().then(() => {
  const form = document.getElementById("filters");
  if (form) {
    form.addEventListener("change", applyFilters);
    form.addEventListener("reset", () => setTimeout(applyFilters));
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  draw();
  if (data.first !== undefined) choose(data.first);
  document.documentElement.dataset.ready = "true";
}).catch((error) => {
  document.documentElement.dataset.ready = "false";
  for (const node of document.querySelectorAll(".plot")) {
    node.style.minHeight = "0";
    node.textContent = "This browser cannot draw the plots (" + error + "); the tables hold the same numbers.";
  }
});
