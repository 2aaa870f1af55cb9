// Small charts as SVG, in the colours of the page.

const WIDE = 320, HIGH = 150, LEFT = 44, BOTTOM = 26, TOP = 12, RIGHT = 10;

const short = (v) => {
  const size = Math.abs(v);
  if (size === 0) return "0";
  return size >= 1000 || size < 0.01 ? v.toExponential(0).replace("e+", "e") : String(Number(v.toPrecision(2)));
};

function frame({ x, y, log = false, title, below }) {
  const scale = log ? Math.log10 : (v) => v;
  const [x0, x1] = x, [y0, y1] = y.map(scale);
  const px = (v) => LEFT + ((v - x0) / (x1 - x0 || 1)) * (WIDE - LEFT - RIGHT);
  const py = (v) => HIGH - BOTTOM - ((scale(v) - y0) / (y1 - y0 || 1)) * (HIGH - BOTTOM - TOP);
  const ticks = [0, 0.5, 1].map((s) => {
    const at = y0 + s * (y1 - y0), value = log ? 10 ** at : at, line = py(value).toFixed(1);
    return `<line class="hair" x1="${LEFT}" x2="${WIDE - RIGHT}" y1="${line}" y2="${line}"/>
      <text x="${LEFT - 6}" y="${Number(line) + 3.5}" text-anchor="end">${short(value)}</text>`;
  });
  const labels = `<text x="${(LEFT + WIDE - RIGHT) / 2}" y="${HIGH - 5}" text-anchor="middle">${below}</text>`;
  const open = `<svg viewBox="0 0 ${WIDE} ${HIGH}" role="img" aria-label="${title}"><title>${title}</title>`;
  return { px, py, open: open + ticks.join("") + labels };
}

const dots = (list, px, py, kind, r = 2.2) =>
  list.map(([a, b]) => `<circle class="${kind}" cx="${px(a).toFixed(1)}" cy="${py(b).toFixed(1)}" r="${r}"/>`).join("");

const line = (list, px, py, kind) =>
  `<polyline class="${kind}" points="${list.map(([a, b]) => `${px(a).toFixed(1)},${py(b).toFixed(1)}`).join(" ")}"/>`;

// Costs of each iteration: all candidates, the elites, and the best.
export function costCurve(iterations, total) {
  if (!iterations.length) return "";
  const costs = iterations.flatMap((one) => Array.from(one.costs)).filter((c) => c > 0);
  const range = [Math.min(...costs), Math.max(...costs)];
  const title = "Cost of every candidate, by iteration of the search";
  const { px, py, open } = frame({ x: [0.6, total + 0.4], y: range, log: true, title, below: "iteration of the search" });
  const parts = iterations.map((one, i) => {
    const elite = new Set(one.elites);
    const all = Array.from(one.costs, (c, s) => [i + 1 + ((s * 0.618) % 1 - 0.5) * 0.5, Math.max(c, 1e-9), s]);
    return dots(all.filter(([, , s]) => !elite.has(s)), px, py, "all", 1.5) + dots(all.filter(([, , s]) => elite.has(s)), px, py, "elite", 2);
  });
  const best = iterations.map((one, i) => [i + 1, Math.max(Math.min(...one.costs), 1e-9)]);
  return `${open}${parts.join("")}${line(best, px, py, "best")}</svg>`;
}

// Distance between the imagined and the real place, after each block of actions.
export function driftChart(list) {
  if (!list.length) return "";
  const y = [0, Math.max(8, ...list.map((one) => one.off))];
  const title = "Distance between the imagined and the real place, by block of actions";
  const { px, py, open } = frame({ x: [0, Math.max(5, list.length)], y, title, below: "block of actions" });
  const bars = list.map(({ off }, i) =>
    `<line class="bar" x1="${px(i + 0.5)}" x2="${px(i + 0.5)}" y1="${py(0)}" y2="${py(off)}"/>`);
  return `${open}${bars.join("")}${dots(list.map((one, i) => [i + 0.5, one.off]), px, py, "elite", 3)}</svg>`;
}

// Prediction error by block, with the band of ordinary errors.
export function surpriseChart(list, [middle, most]) {
  const values = list.map((one) => one.error), floor = Math.max(Math.min(middle / 3, ...values), 1e-9);
  const y = [floor, Math.max(most * 3, ...values)], right = Math.max(12, list.length);
  const title = "Prediction error, block by block";
  const { px, py, open } = frame({ x: [0, right], y, log: true, title, below: "block of actions" });
  const band = `<rect class="band" x="${px(0)}" width="${px(right) - px(0)}" y="${py(most)}" height="${Math.max(py(floor) - py(most), 0)}"/>
    <text x="${px(right) - 5}" y="${py(floor) - 6}" text-anchor="end">99 of 100 held-out steps are in the band</text>`;
  const points = list.map((one, i) => [i + 0.5, Math.max(one.error, floor)]);
  const notes = list.map((one, i) => one.note
    ? `<text class="word" x="${Math.min(px(i + 0.5), WIDE - 34)}" y="${Math.max(py(one.error) - 7, 9)}" text-anchor="middle">${one.note}</text>` : "");
  const kind = (one) => (one.error > most ? "alarm" : "elite");
  return `${open}${band}${line(points, px, py, "thin")}${list.map((one, i) => dots([points[i]], px, py, kind(one), 3)).join("")}${notes.join("")}</svg>`;
}

const escaped = (text) => String(text).replace(/[&<>"']/g, (sign) => `&#${sign.charCodeAt(0)};`);

// One tile per figure, with escaped text; a tile with an id gets its value later.
export const tiles = (list) => list.map(({ id, value, words }) =>
  `<div><b>${id ? `<span id="${id}" style="all:unset">–</span>` : escaped(value)}</b><span>${escaped(words)}</span></div>`).join("");
