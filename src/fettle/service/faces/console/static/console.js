// The curves of a run: asked for while somebody looks, drawn anew when the light changes.
"use strict";

const EVERY_MS = 3000;
const HEIGHT = 190;

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function told(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) >= 1000 ? Math.round(value).toLocaleString("en") : String(+value.toPrecision(4));
}

function marked(value, step) {
  return value.toLocaleString("en", { maximumFractionDigits: Math.max(0, 1 - Math.floor(Math.log10(step))) });
}

function settings(panel, width, pointed) {
  const axis = {
    stroke: color("--faint"),
    grid: { stroke: color("--line"), width: 1 },
    ticks: { stroke: color("--line"), width: 1 },
    font: "12px system-ui, sans-serif",
  };
  const strokes = [color("--accent"), color("--second")];
  const lines = panel.lines.map((line, place) => ({
    label: line.label,
    stroke: strokes[place % strokes.length],
    width: 2,
    dash: place ? [6, 4] : [],
    spanGaps: true,
    points: { show: panel.steps.length < 30 },
  }));
  return {
    width,
    height: HEIGHT,
    scales: { x: { time: false } },
    axes: [
      { ...axis, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 50000, 100000] },
      { ...axis, size: 58, values: (_, marks, __, ___, step) => marks.map((mark) => marked(mark, step)) },
    ],
    cursor: { drag: { x: true, y: false } },
    legend: { show: panel.lines.length > 1, live: false },
    hooks: { setCursor: [(chart) => pointed(chart.cursor.idx)] },
    series: [{ label: "step" }, ...lines],
  };
}

function columns(panel) {
  return [panel.steps, ...panel.lines.map((line) => line.values)];
}

function newest(line) {
  return line.values.findLast((value) => value !== null);
}

class Curve {
  constructor(panel, room) {
    this.figure = document.createElement("figure");
    this.figure.className = "curve";
    const caption = document.createElement("figcaption");
    const unit = document.createElement("small");
    unit.className = "faint";
    unit.textContent = panel.unit;
    this.now = document.createElement("span");
    this.now.className = "now";
    caption.append(panel.title, unit, this.now);
    this.plot = document.createElement("div");
    this.figure.append(caption, this.plot);
    room.append(this.figure);
    this.show(panel);
  }

  show(panel) {
    const same = this.panel && this.panel.lines.length === panel.lines.length && this.panel.steps.length >= 30;
    this.panel = panel;
    this.tell(this.chart?.cursor.idx);
    this.plot.setAttribute("role", "img");
    const last = panel.lines.map((line) => `${line.label} ${told(newest(line))}`).join(", ");
    this.plot.setAttribute("aria-label", `${panel.title} over ${panel.steps.length} steps; newest: ${last}`);
    this.figure.dataset.points = panel.steps.length;
    if (same) this.chart.setData(columns(panel));
    else this.draw();
  }

  tell(place) {
    const { lines, steps } = this.panel;
    const pointed = place !== null && place !== undefined;
    const values = lines.map((line) => told(pointed ? line.values[place] : newest(line)));
    this.now.textContent = pointed ? `step ${steps[place].toLocaleString("en")}: ${values.join(", ")}` : values[0];
  }

  draw() {
    if (this.chart) this.chart.destroy();
    const drawn = settings(this.panel, this.plot.clientWidth, (place) => this.tell(place));
    this.chart = new uPlot(drawn, columns(this.panel), this.plot);
  }

  fit() {
    this.chart.setSize({ width: this.plot.clientWidth, height: HEIGHT });
  }
}

function watch(room) {
  const curves = new Map();

  async function look() {
    if (document.hidden) return;
    const answer = await fetch(room.dataset.url, { headers: { Accept: "application/json" } }).catch(() => null);
    if (!answer || !answer.ok) return;
    const panels = await answer.json();
    if (panels.length) room.querySelector(".empty")?.remove();
    for (const panel of panels) {
      if (curves.has(panel.title)) curves.get(panel.title).show(panel);
      else curves.set(panel.title, new Curve(panel, room));
    }
  }

  look();
  if (room.dataset.live === "yes") setInterval(look, EVERY_MS);
  document.addEventListener("visibilitychange", look);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => curves.forEach((curve) => curve.draw()));
  new ResizeObserver(() => curves.forEach((curve) => curve.fit())).observe(room);
}

const room = document.getElementById("curves");
if (room) watch(room);
