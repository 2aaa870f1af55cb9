// Two maps of the model: its cost at every place, and its embeddings in two directions.

import { squared } from "./brain.js";
import { Backdrop, begin, colour, depth, disc, fan, path, placeColour, ring } from "./draw.js";
import { trueDistance } from "./worlds.js";

const CELLS = 28, PART = 56;

// The embedding of every place that the disc can be at.
export class PlaceMap {
  constructor(brain, world, model) {
    Object.assign(this, { brain, world, model, turn: 0, ready: false });
  }

  // Encodes all places again; a later call stops an earlier one.
  async survey(told) {
    const turn = ++this.turn, { world } = this, step = world.size / CELLS, places = [];
    for (let p = 0; p < CELLS * CELLS; p++) {
      const at = [(p % CELLS + 0.5) * step, (Math.floor(p / CELLS) + 0.5) * step];
      if (world.free(...at)) places.push({ p, at: world.layout === undefined ? at : [...at, world.layout] });
    }
    const found = [];
    for (let n = 0; n < places.length; n += PART) {
      const part = places.slice(n, n + PART), size = 3 * world.side ** 2;
      const frames = new Uint8Array(part.length * size);
      part.forEach(({ at }, i) => frames.set(world.frame(at), i * size));
      const { z } = await this.brain.ask("encode", { model: this.model, frames });
      if (turn !== this.turn) return false;
      const D = z.length / part.length;
      part.forEach((one, i) => found.push({ ...one, z: z.subarray(i * D, (i + 1) * D) }));
      told?.(Math.min(1, (n + PART) / places.length));
    }
    this.places = found;
    return (this.ready = true);
  }

  // ‖z − z_goal‖² at every place, [CELLS²]; NaN where a disc cannot be.
  costs(goal) {
    const out = new Float64Array(CELLS * CELLS).fill(NaN);
    for (const { p, z } of this.places) out[p] = squared(z, goal);
    return out;
  }
}

// Lengths of the true ways on the same grid.
export function ways(world, goal) {
  const fine = trueDistance(world, goal, 2 * CELLS), out = new Float64Array(CELLS * CELLS).fill(NaN);
  for (let p = 0; p < out.length; p++) {
    const [x, y] = [2 * (p % CELLS), 2 * Math.floor(p / CELLS)];
    const four = [0, 1].flatMap((j) => [0, 1].map((i) => fine[(y + j) * 2 * CELLS + x + i])).filter(Number.isFinite);
    if (four.length) out[p] = four.reduce((a, b) => a + b) / four.length;
  }
  return out;
}

const backdrops = new WeakMap();

// Fills cells under walls with the mean of their known neighbours, so that no rim is visible.
function filled(values) {
  let now = values;
  for (let pass = 0; pass < 4; pass++) {
    const next = now.slice();
    for (let p = 0; p < now.length; p++) {
      if (Number.isFinite(now[p])) continue;
      const around = [];
      for (let dy = -1; dy <= 1; dy++)
        for (let dx = -1; dx <= 1; dx++) {
          const x = (p % CELLS) + dx, y = Math.floor(p / CELLS) + dy, value = now[y * CELLS + x];
          if (x >= 0 && y >= 0 && x < CELLS && y < CELLS && Number.isFinite(value)) around.push(value);
        }
      if (around.length) next[p] = around.reduce((a, b) => a + b) / around.length;
    }
    now = next;
  }
  return now;
}

export function drawCost(canvas, world, costs, { agent, goal }) {
  const g = begin(canvas, world.size), known = Array.from(costs).filter(Number.isFinite), values = filled(costs);
  g.fillStyle = colour("card");
  g.fillRect(0, 0, world.size, world.size);
  const most = Math.max(...known), image = new ImageData(CELLS * 4, CELLS * 4);
  // Values between centres are interpolated, so that bands are smooth.
  for (let i = 0; i < CELLS * 4; i++)
    for (let j = 0; j < CELLS * 4; j++) {
      const [u, v] = [(j + 0.5) / 4 - 0.5, (i + 0.5) / 4 - 0.5], [x, y] = [Math.floor(u), Math.floor(v)];
      let [sum, weight] = [0, 0];
      for (const dy of [0, 1])
        for (const dx of [0, 1]) {
          const value = values[(y + dy) * CELLS + x + dx];
          if (x + dx < 0 || y + dy < 0 || x + dx >= CELLS || y + dy >= CELLS || !Number.isFinite(value)) continue;
          const w = (dx ? u - x : 1 - u + x) * (dy ? v - y : 1 - v + y) + 1e-9;
          sum += w * value;
          weight += w;
        }
      if (weight < 1e-6) continue;
      const shade = depth(Math.sqrt(sum / weight / most));
      image.data.set([...shade, 255], 4 * (i * CELLS * 4 + j));
    }
  const small = new OffscreenCanvas(CELLS * 4, CELLS * 4);
  small.getContext("2d").putImageData(image, 0, 0);
  g.imageSmoothingEnabled = true;
  g.drawImage(small, 0, 0, world.size, world.size);
  if (!backdrops.has(canvas)) backdrops.set(canvas, new Backdrop());
  backdrops.get(canvas).draw(g, world, { floor: "" });
  disc(g, agent, world.radius, colour("c1"));
  ring(g, agent, world.radius + 1, "#fff", 1.5);
  if (goal) {
    ring(g, goal, 10, "#fff", 4);
    ring(g, goal, 10, colour("c2"), 2.5);
  }
}

// Share of pairs of places that two maps put in the same order, by Spearman's rank correlation.
export function agreement(a, b) {
  const both = Array.from(a, (_, p) => p).filter((p) => Number.isFinite(a[p]) && Number.isFinite(b[p]));
  const ranks = (values) => {
    const order = [...both].sort((p, q) => values[p] - values[q]), out = new Map();
    order.forEach((p, r) => out.set(p, r));
    return out;
  };
  const [ra, rb] = [ranks(a), ranks(b)], n = both.length;
  const off = both.reduce((sum, p) => sum + (ra.get(p) - rb.get(p)) ** 2, 0);
  return 1 - (6 * off) / (n * (n * n - 1));
}

// Recorded embeddings as points in two directions, coloured by where the agent was.
export class LatentMap {
  // `like` is another map whose scale is used.
  constructor(canvas, { points, places, middle, components }, like = null) {
    Object.assign(this, { canvas, points, middle, components });
    const range = (list, i) => [Math.min(...list.map((one) => one[i])), Math.max(...list.map((one) => one[i]))];
    this.box = [range(points, 0), range(points, 1)];
    this.wide = like?.wide ?? Math.max(...this.box.map(([a, b]) => b - a), 1e-6) * 1.12;
    const space = [range(places, 0), range(places, Math.min(1, places[0].length - 1))];
    const share = (v, [a, b]) => (v - a) / (b - a || 1);
    this.paints = places.map((one) => placeColour(share(one[0], space[0]), share(one[1] ?? one[0], space[1])));
  }

  // One scale for both directions.
  at([x, y]) {
    const [[x0, x1], [y0, y1]] = this.box, { wide } = this;
    return [50 + (100 * (x - (x0 + x1) / 2)) / wide, 50 + (100 * (y - (y0 + y1) / 2)) / wide];
  }

  flat(z) {
    return this.components.map((c) => c.reduce((sum, w, d) => sum + w * (z[d] - this.middle[d]), 0));
  }

  draw({ now, goal, seen, trail = [] }) {
    const g = begin(this.canvas, 100);
    g.globalAlpha = 0.75;
    this.points.forEach((p, i) => disc(g, this.at(p), 0.75, this.paints[i]));
    g.globalAlpha = 1;
    if (seen && now) {
      const places = new Float32Array(seen.latent.length);
      for (let i = 0; i < places.length; i += 2) places.set(this.at([seen.latent[i], seen.latent[i + 1]]), i);
      fan(g, this.at(this.flat(now)), { ...seen, places, Q: 2 }, 0.4);
    }
    path(g, trail.map((z) => this.at(this.flat(z))), colour("ink"), 0.8, 0.8);
    if (goal) {
      ring(g, this.at(this.flat(goal)), 2.6, colour("paper"), 1.8);
      ring(g, this.at(this.flat(goal)), 2.6, colour("c2"), 1);
    }
    if (now) {
      disc(g, this.at(this.flat(now)), 2.4, colour("paper"));
      disc(g, this.at(this.flat(now)), 1.9, colour("c1"));
    }
  }
}
