// Two-Room and the maze, with the same states and pixels as worldmodel/worlds.
// fround marks the places where Python computes in float32.

const f = Math.fround;
const SIZE = 224, RADIUS = 7, SPEED = 8, BORDER = 4, THICKNESS = 10, FINE = 8;
const FLOOR = [244, 241, 234], WALL = [62, 68, 84];
export const AGENT = [222, 73, 55];
export const REACH = 16; // a goal is reached when the centres are closer than this

const clip = (x, low, high) => Math.min(Math.max(x, low), high);

// Rounds as numpy does: to the nearest whole number, halves to the even one.
function rint(x) {
  const r = Math.round(x);
  return Math.abs(x % 1) === 0.5 && r % 2 !== 0 ? r - 1 : r;
}

// Floor of a quotient in float32, as numpy computes it.
function floorDivide(a, b) {
  const down = f(f(a - (a % b)) / b);
  const whole = Math.floor(down);
  return down - whole > 0.5 ? whole + 1 : whole;
}

class Rooms {
  constructor(side) {
    this.side = side; // of a frame, in pixels
    this.size = SIZE;
    this.radius = RADIUS;
    this.walls = []; // drawn by hand: [x0, y0, x1, y1]
    this.step_ = f(SIZE / side);
  }

  // Call this after a change of hand-drawn walls.
  changed() {
    this.background = null;
  }

  move(state, action) {
    const [x, y] = this.own(state, action.map((a) => f(SPEED * clip(f(a), -1, 1))));
    if (!this.walls.length) return [x, y, ...state.slice(2)];
    // Moves along x, then along y, and stops at each wall, which is grown by the disc's radius.
    const to = [state[0], state[1]];
    for (const axis of [0, 1]) {
      const from = to[axis];
      to[axis] = axis ? y : x;
      for (const w of this.walls) {
        const beside = to[1 - axis];
        const low = w[axis] - RADIUS, high = w[axis + 2] + RADIUS;
        const inside = beside > w[1 - axis] - RADIUS && beside < w[3 - axis] + RADIUS;
        if (!inside || to[axis] <= low || to[axis] >= high) continue;
        if (from <= low) to[axis] = low;
        else if (from >= high) to[axis] = high;
        else to[axis] = from;
      }
    }
    return [f(to[0]), f(to[1]), ...state.slice(2)];
  }

  // Whether a disc at a place touches no wall.
  free(x, y) {
    const edge = BORDER + RADIUS;
    if (x < edge || y < edge || x > SIZE - edge || y > SIZE - edge) return false;
    const near = (w) =>
      x > w[0] - RADIUS && x < w[2] + RADIUS && y > w[1] - RADIUS && y < w[3] + RADIUS;
    return !this.walls.some(near) && !this.blocked(x, y);
  }

  success(a, b) {
    const dx = f(a[0] - b[0]), dy = f(a[1] - b[1]);
    const length = f(Math.sqrt(f(f(dx * dx) + f(dy * dy))));
    return length < REACH && (a[2] ?? 0) === (b[2] ?? 0);
  }

  // Share of each pixel that is wall, [side × side], over FINE × FINE samples.
  cover() {
    const fine = this.side * FINE, out = new Float64Array(this.side ** 2);
    for (let i = 0; i < fine; i++) {
      const y = ((i + 0.5) * SIZE) / fine;
      for (let j = 0; j < fine; j++) {
        const x = ((j + 0.5) * SIZE) / fine;
        if (this.solid(x, y) || this.walls.some((w) => x > w[0] && x < w[2] && y > w[1] && y < w[3]))
          out[(i >> 3) * this.side + (j >> 3)] += 1 / FINE ** 2;
      }
    }
    return out;
  }

  // The frame [3, side, side] with the disc at a place; null draws no disc.
  frame(state, colour = AGENT) {
    const side = this.side, plane = side * side;
    const number = state?.[2] ?? this.layout ?? 0;
    if (!this.background || this.drawn !== number) {
      this.use?.(number);
      const cover = this.cover();
      this.background = new Uint8Array(3 * plane);
      for (let c = 0; c < 3; c++)
        for (let p = 0; p < plane; p++)
          this.background[c * plane + p] = rint(FLOOR[c] * (1 - cover[p]) + WALL[c] * cover[p]);
      this.drawn = number;
    }
    const out = this.background.slice();
    if (!state) return out;
    const scale = side / SIZE, reach = Math.ceil(RADIUS * scale + 1);
    const [x, y] = [0, 1].map((i) => f(f(f(state[i]) * f(scale)) - 0.5));
    const [cx, cy] = [rint(x), rint(y)];
    for (let i = Math.max(cy - reach, 0); i <= Math.min(cy + reach, side - 1); i++)
      for (let j = Math.max(cx - reach, 0); j <= Math.min(cx + reach, side - 1); j++) {
        const cover = clip(RADIUS * scale + 0.5 - Math.sqrt((j - x) ** 2 + (i - y) ** 2), 0, 1);
        for (let c = 0; c < 3; c++) {
          const under = out[c * plane + i * side + j];
          out[c * plane + i * side + j] = rint(under + cover * (colour[c] - under));
        }
      }
    return out;
  }
}

export class TwoRoom extends Rooms {
  name = "Two-Room";
  low = BORDER + RADIUS;
  left = SIZE / 2 - THICKNESS / 2 - RADIUS;
  right = SIZE / 2 + THICKNESS / 2 + RADIUS;

  own([x, y], [dx, dy]) {
    const { low, left, right } = this, high = SIZE - low, gap = 20 - RADIUS;
    let toX = clip(f(x + dx), low, high);
    if (toX > left && toX < right && Math.abs(f(y - 112)) > gap) toX = x <= left ? left : right;
    let toY = clip(f(y + dy), low, high);
    if (toX > left && toX < right) toY = clip(toY, 112 - gap, 112 + gap);
    return [toX, toY];
  }

  solid(x, y) {
    const border = Math.min(x, SIZE - x, y, SIZE - y) < BORDER;
    return border || (Math.abs(x - SIZE / 2) < THICKNESS / 2 && Math.abs(y - 112) > 20);
  }

  blocked(x, y) {
    return x > this.left && x < this.right && Math.abs(y - 112) > 20 - RADIUS;
  }
}

export class Maze extends Rooms {
  name = "Maze";

  // layouts: by number, which walls have doors: right [3][2], down [2][3].
  constructor(side, layouts, layout = Number(Object.keys(layouts)[0])) {
    super(side);
    this.layouts = layouts;
    this.layout = layout;
  }

  use(number) {
    this.layout = number;
  }

  own([x, y, number], [dx, dy]) {
    const { right, down } = this.layouts[number ?? this.layout];
    const across = (lane, wall) => right[lane][wall - 1], along = (lane, wall) => down[wall - 1][lane];
    const toX = this.along(x, y, dx, across, f);
    const toY = this.along(y, toX, dy, along, (v) => v);
    return [f(toX), f(toY)];
  }

  // `round` is the precision of the other coordinate: float32, then float64 after x has moved.
  along(at, beside, move, door, round) {
    const cell = SIZE / 3, reach = THICKNESS / 2 + RADIUS, gap = 16 - RADIUS, low = BORDER + RADIUS;
    const width = round(cell);
    let to = clip(f(at + move), low, SIZE - low);
    const wall = clip(rint(to / cell), 1, 2);
    const quotient = round === f ? floorDivide(beside, width) : Math.floor(beside / cell);
    const lane = clip(quotient, 0, 2);
    const through = door(lane, wall) && Math.abs(beside - (lane + 0.5) * cell) <= gap;
    if (Math.abs(to - wall * cell) < reach && !through)
      to = at < wall * cell ? wall * cell - reach : wall * cell + reach;
    const nearest = round(clip(rint(round(beside / width)), 1, 2) * width);
    if (Math.abs(round(beside - nearest)) < reach) {
      const mine = f(f(clip(floorDivide(at, f(cell)), 0, 2) + 0.5) * f(cell));
      to = clip(to, f(mine - gap), f(mine + gap));
    }
    return to;
  }

  solid(x, y) {
    if (Math.min(x, y) < BORDER || Math.max(x, y) >= SIZE - BORDER) return true;
    return this.wallAt(x, y, THICKNESS / 2, 16);
  }

  blocked(x, y) {
    return this.wallAt(x, y, THICKNESS / 2 + RADIUS, 16 - RADIUS);
  }

  wallAt(x, y, half, door) {
    const cell = SIZE / 3, { right, down } = this.layouts[this.layout];
    const within = (v, middle, h) => v >= middle - h && v < middle + h;
    let [solid, open] = [false, false];
    for (const k of [1, 2]) {
      for (const [a, b, doors] of [[x, y, (lane) => right[lane][k - 1]], [y, x, (lane) => down[k - 1][lane]]]) {
        if (!within(a, k * cell, half)) continue;
        solid = true;
        for (const lane of [0, 1, 2])
          open ||= doors(lane) && within(b, (lane + 0.5) * cell, door);
      }
    }
    return solid && !open;
  }
}

export function makeWorld(told) {
  if (told.kind === "two-room") return new TwoRoom(told.size);
  return told.kind === "maze" ? new Maze(told.size, told.layouts) : null;
}

// Lengths of the ways of a disc around walls to a goal, from the centres of a grid.
export function trueDistance(world, goal, cells = 56) {
  const out = new Float64Array(cells * cells).fill(Infinity);
  const step = SIZE / cells, at = (i) => (i + 0.5) * step;
  const open = Uint8Array.from(out, (_, p) => world.free(at(p % cells), at(Math.floor(p / cells))));
  const seeds = [];
  for (let p = 0; p < out.length; p++) {
    const d = Math.hypot(at(p % cells) - goal[0], at(Math.floor(p / cells)) - goal[1]);
    if (open[p] && d < 1.6 * step) {
      out[p] = d;
      seeds.push(p);
    }
  }
  const around = [];
  for (let dy = -2; dy <= 2; dy++)
    for (let dx = -2; dx <= 2; dx++)
      if (Math.abs(dx) + Math.abs(dy) === 1 || (dx && dy && Math.abs(dx * dy) <= 2)) around.push([dx, dy]);
  // A few sweeps of relaxation: shorter than a priority queue, and fast enough here.
  let ring = new Set(seeds);
  while (ring.size) {
    const next = new Set();
    for (const p of ring) {
      const [x, y] = [p % cells, Math.floor(p / cells)];
      for (const [dx, dy] of around) {
        const [i, j] = [x + dx, y + dy];
        if (i < 0 || j < 0 || i >= cells || j >= cells) continue;
        const q = j * cells + i, d = out[p] + step * Math.hypot(dx, dy);
        const clear = open[q] && (Math.abs(dx * dy) < 1 || (open[y * cells + i] && open[j * cells + x]));
        if (clear && d < out[q] - 1e-9) {
          out[q] = d;
          next.add(q);
        }
      }
    }
    ring = next;
  }
  return out;
}
