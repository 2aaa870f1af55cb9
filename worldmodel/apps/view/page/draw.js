// Drawing on canvases, in the world's units or a plot's, at the screen's own resolution.

const colours = {};
export function readColours() {
  const style = getComputedStyle(document.documentElement);
  for (const name of ["paper", "ink", "faint", "hair", "card", "c0", "c1", "c2", "c3", "floor", "wall"])
    colours[name] = style.getPropertyValue(`--${name}`).trim();
  return colours;
}
export const colour = (name) => colours[name];

// A cleared context in which a side of `units` fills the canvas.
export function begin(canvas, units, ratio = 1) {
  const dense = Math.min(window.devicePixelRatio || 1, 2.5);
  const wide = Math.max(Math.round((canvas.clientWidth || 300) * dense), 64);
  const high = Math.round(wide * ratio);
  if (canvas.width !== wide || canvas.height !== high) Object.assign(canvas, { width: wide, height: high });
  const g = canvas.getContext("2d");
  g.setTransform(wide / units, 0, 0, wide / units, 0, 0);
  g.clearRect(0, 0, units, units * ratio);
  g.lineJoin = g.lineCap = "round";
  return g;
}

export function disc(g, [x, y], r, fill) {
  g.beginPath();
  g.arc(x, y, r, 0, 2 * Math.PI);
  g.fillStyle = fill;
  g.fill();
}

export function ring(g, [x, y], r, stroke, width = 2, dash = []) {
  g.beginPath();
  g.arc(x, y, r, 0, 2 * Math.PI);
  g.setLineDash(dash);
  g.strokeStyle = stroke;
  g.lineWidth = width;
  g.stroke();
  g.setLineDash([]);
}

export function path(g, points, stroke, width, alpha = 1) {
  if (points.length < 2) return;
  g.globalAlpha = alpha;
  g.beginPath();
  points.forEach(([x, y], i) => (i ? g.lineTo(x, y) : g.moveTo(x, y)));
  g.strokeStyle = stroke;
  g.lineWidth = width;
  g.stroke();
  g.globalAlpha = 1;
}

// Candidate s of [S, H, Q] as points, after its start.
export function future(start, places, s, H, Q) {
  const out = [start];
  for (let h = 0; h < H; h++) out.push([places[(s * H + h) * Q], places[(s * H + h) * Q + 1]]);
  return out;
}

// All candidates of an iteration as a fan: the elites above the others, the best on top.
export function fan(g, start, { costs, elites, places, Q }, wide = 1) {
  const S = costs.length, H = places.length / (S * Q);
  for (let s = 0; s < S; s++) path(g, future(start, places, s, H, Q), colour("faint"), 0.8 * wide, 0.28);
  for (const s of [...elites].reverse()) path(g, future(start, places, s, H, Q), colour("c0"), 1.4 * wide, 0.6);
  const best = future(start, places, elites[0], H, Q);
  path(g, best, colour("c0"), 2.4 * wide);
}

const NEAR_TO_FAR = [[255, 246, 205], [248, 201, 99], [226, 108, 62], [148, 45, 90], [64, 32, 92], [24, 20, 54]];

// Colours from near (light) to far (dark), in bands.
export function depth(share, bands = 14) {
  const s = Math.min(Math.max(Math.floor(share * bands) / (bands - 1), 0), 1) * (NEAR_TO_FAR.length - 1);
  const i = Math.min(Math.floor(s), NEAR_TO_FAR.length - 2);
  return NEAR_TO_FAR[i].map((v, c) => v + (s - i) * (NEAR_TO_FAR[i + 1][c] - v));
}

const CORNERS = [[53, 102, 196], [209, 69, 47], [44, 138, 95], [219, 163, 60]];

// A colour for a place, x and y in 0…1, mixed from one colour per corner.
export function placeColour(x, y) {
  const mix = (c) =>
    (1 - y) * ((1 - x) * CORNERS[0][c] + x * CORNERS[1][c]) + y * ((1 - x) * CORNERS[2][c] + x * CORNERS[3][c]);
  return `rgb(${[0, 1, 2].map((c) => Math.round(mix(c))).join(" ")})`;
}

// Frame [3, side, side] as the model sees it.
export function pixels(canvas, frame, side) {
  Object.assign(canvas, { width: side, height: side });
  const image = new ImageData(side, side), plane = side * side;
  for (let p = 0; p < plane; p++) {
    for (let c = 0; c < 3; c++) image.data[4 * p + c] = frame[c * plane + p];
    image.data[4 * p + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
}

// Walls and floor of a world, drawn again only after a change.
export class Backdrop {
  draw(g, world, { floor = colour("floor"), wall = colour("wall") } = {}) {
    const key = [world.layout, world.walls.length, floor, wall].join();
    if (key !== this.key) {
      const side = 896, size = world.size, canvas = new OffscreenCanvas(side, side), b = canvas.getContext("2d");
      if (floor) {
        b.fillStyle = floor;
        b.fillRect(0, 0, side, side);
      }
      b.fillStyle = wall;
      for (let i = 0; i < side; i++) {
        const y = ((i + 0.5) * size) / side;
        let from = null;
        for (let j = 0; j <= side; j++) {
          const solid = j < side && world.solid(((j + 0.5) * size) / side, y);
          if (solid && from === null) from = j;
          if (!solid && from !== null) {
            b.fillRect(from, i, j - from, 1);
            from = null;
          }
        }
      }
      const k = side / size;
      for (const [x0, y0, x1, y1] of world.walls) b.fillRect(x0 * k, y0 * k, (x1 - x0) * k, (y1 - y0) * k);
      Object.assign(this, { key, canvas });
    }
    g.drawImage(this.canvas, 0, 0, world.size, world.size);
  }
}
