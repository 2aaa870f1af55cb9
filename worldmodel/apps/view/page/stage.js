// The simulated world on the canvas: the agent's actions and the user's input.

import { Player, distance, median, sleep, squared } from "./brain.js";
import { Backdrop, begin, colour, disc, fan, path, pixels, ring } from "./draw.js";
import { AGENT } from "./worlds.js";

const BLUE = [53, 102, 196];
const MOST_STEPS = 300;

export class Stage extends Player {
  // `changed(what)` is called when the goal, the walls, the maze or the agent's paint changed.
  constructor(canvas, eye, world, told, brain, settings, changed) {
    super();
    Object.assign(this, { canvas, eye, world, told, brain, settings, changed });
    this.backdrop = new Backdrop();
    this.paint = AGENT;
    this.tool = "goal";
    this.times = [];
    this.turn = 0; // increases when plans become out of date
    this.errors = []; // of one-step predictions
    const pair = told.world.pairs;
    this.state = pair ? pair.starts[0].slice() : [56, 112];
    if (this.state.length > 2) world.use(this.state[2]);
    this.clear();
    this.hands();
  }

  get model() {
    return this.settings().model;
  }

  // Clears plans, steps and paths; the agent, its goal and the walls stay.
  clear() {
    this.turn++;
    Object.assign(this, { seen: null, iterations: [], expected: [], drift: [], steps: 0, trail: [this.state.slice(0, 2)], path: [], now: null });
    this.reached = this.goal ? this.world.success(this.state, this.goal) : false;
    this.brain.ask("forget", { name: "page" });
  }

  report() {
    const { state, goal, reached, steps } = this;
    return { agent: state.slice(0, 2), goal: goal?.slice(0, 2) ?? null, reached, steps, planMs: median(this.times.slice(-15)) };
  }

  // The nearest place where a disc can be.
  nearest([x, y]) {
    if (this.world.free(x, y)) return [x, y];
    let best = null;
    for (let p = 0; p < 112 * 112; p++) {
      const at = [2 * (p % 112) + 1, 2 * Math.floor(p / 112) + 1];
      if (this.world.free(...at) && (!best || distance(at, [x, y]) < distance(best, [x, y]))) best = at;
    }
    return best;
  }

  set({ goal, agent, maze }) {
    const rest = this.state.slice(2);
    if (maze !== undefined) {
      this.world.use(maze);
      this.state = [...this.nearest(this.state), maze];
      this.goal = null;
    }
    if (agent) this.state = [...this.nearest(agent), ...rest];
    if (goal) this.goal = [...this.nearest(goal), ...rest];
    this.clear();
    this.aim = null;
    this.changed(maze !== undefined ? "maze" : goal ? "goal" : "agent");
    this.draw();
  }

  // Another model, or another horizon.
  again() {
    this.clear();
    this.aim = null;
    this.draw();
  }

  look() {
    return this.world.frame(this.state, this.paint);
  }

  // The goal's embedding, from its picture.
  async aimed() {
    const { model, goal, turn } = this;
    if (!this.aim || this.aim.model !== model || this.aim.turn !== turn)
      this.aim = { model, turn, ...(await this.brain.ask("encode", { model, frames: this.world.frame(goal) })) };
    return this.aim;
  }

  // Plans once, shows the search, and executes the first block, or with `blind` all blocks.
  async plan(blind = false) {
    const { turn, model } = this, goal = await this.aimed(), settings = this.settings();
    const slow = settings.pace === "slow", { horizon: H } = settings, queue = [];
    const asked = { model, name: "page", frame: this.look(), goal, settings, seed: 1 };
    const found = await this.brain.ask("plan", asked, (one) => queue.push(one));
    if (turn !== this.turn) return;
    this.times.push(found.ms);
    this.now = found.z;
    this.path.push(found.z);
    [this.iterations, this.expected, this.origin] = [[], [], this.state.slice(0, 2)];
    for (const one of queue) {
      this.iterations.push(one);
      this.seen = one;
      if (!slow && one !== queue.at(-1)) continue;
      this.draw();
      if (slow) await sleep(110);
      if (turn !== this.turn) return;
    }
    const Q = found.expected.places.length / H, D = found.z.length;
    this.expected = Array.from({ length: H }, (_, h) => Array.from(found.expected.places.slice(h * Q, h * Q + 2)));
    const blocks = blind ? H : 1, A = found.action.length;
    for (let h = 0; h < blocks && !this.reached; h++) {
      const action = blind ? found.actions.slice(h * A, (h + 1) * A) : found.action;
      const whole = await this.act(action, turn, slow);
      if (turn !== this.turn) return;
      if (!whole) continue;
      this.drift.push({ imagined: this.expected[h], real: this.state.slice(0, 2), off: distance(this.expected[h], this.state) });
      await this.compare(found.expected.z.slice(h * D, (h + 1) * D), turn);
    }
    if (blind) this.brain.ask("forget", { name: "page" });
    this.draw();
  }

  // Holds one action for a block; returns whether the whole block was executed.
  async act(action, turn, slow) {
    const { block } = this.told.models[this.model];
    for (let k = 0; k < block; k++) {
      this.state = this.world.move(this.state, action);
      this.steps++;
      this.trail.push(this.state.slice(0, 2));
      this.reached ||= this.world.success(this.state, this.goal);
      if (slow || k === block - 1) this.draw();
      if (slow) await sleep(45);
      if (turn !== this.turn) return false;
      if (this.reached) return k === block - 1;
    }
    return true;
  }

  // Records the error of the prediction for the current frame.
  async compare(expected, turn, note = "") {
    const { z } = await this.brain.ask("encode", { model: this.model, frames: this.look() });
    if (turn !== this.turn) return;
    this.errors.push({ error: squared(z, expected), note });
    if (this.errors.length > 40) this.errors.shift();
    this.now = z;
    this.changed("error");
  }

  // One block of no-op actions; `meddle` may change the world before the new frame.
  async rest(meddle = null, note = "") {
    const { model, turn } = this, { block } = this.told.models[model], { horizon } = this.settings();
    const { z } = await this.brain.ask("encode", { model, frames: this.look() });
    const raw = new Float32Array(horizon * block * this.told.world.action.low.length);
    const ahead = await this.brain.ask("follow", { model, z, raw, horizon });
    if (turn !== this.turn) return;
    meddle?.();
    await this.compare(ahead.z.slice(0, z.length), this.turn, note);
    this.draw();
  }

  async loop() {
    this.stopping = false;
    this.changed("started");
    while (!this.stopping && this.goal && !this.reached && this.steps < MOST_STEPS) await this.plan();
    this.draw();
    return this.report();
  }

  // Tries one pair as Python does, without drawing; returns whether the goal was reached.
  async attempt(start, goal, budget, seed) {
    const name = `pair ${seed}`, { world, model } = this;
    const aim = await this.brain.ask("encode", { model, frames: world.frame(goal) });
    const { block } = this.told.models[model], settings = { ...this.settings() };
    let [state, reached, times] = [start.slice(), false, []];
    for (let t = 0; t < budget && !reached; ) {
      const found = await this.brain.ask("plan", { model, name, frame: world.frame(state), goal: aim, settings, seed, quiet: true });
      times.push(found.ms);
      for (let k = 0; k < block && t < budget && !reached; k++, t++) {
        state = world.move(state, found.action);
        reached = world.success(state, goal);
      }
    }
    this.brain.ask("forget", { name });
    return { reached, times };
  }

  toggle(blue) {
    this.paint = blue ? BLUE : AGENT;
    this.changed("paint");
    this.draw();
  }

  draw() {
    const { world } = this, g = begin(this.canvas, world.size);
    this.backdrop.draw(g, world);
    if (this.goal) {
      ring(g, this.goal, 14, colour("c2"), 1, [3, 3]);
      ring(g, this.goal, world.radius, colour("c2"), 2.6);
    }
    if (this.seen) fan(g, this.origin, this.seen);
    path(g, this.trail, colour("ink"), 1.6, 0.75);
    for (const { imagined, real } of this.drift) {
      path(g, [imagined, real], colour("c3"), 1);
      ring(g, imagined, 2.4, colour("c3"), 1.2);
    }
    for (const p of this.expected) ring(g, p, 2.4, colour("c3"), 1.2);
    disc(g, this.state, world.radius, this.paint === AGENT ? colour("c1") : "#3566c4");
    pixels(this.eye, this.look(), world.side);
    if (this.goal) pixels(document.getElementById("wish"), world.frame(this.goal), world.side);
    this.changed("drawn");
  }

  // Input on the canvas: a click sets the goal, a drag moves the agent or draws walls.
  hands() {
    const { canvas } = this, size = this.world.size;
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) / box.width) * size, ((event.clientY - box.top) / box.height) * size];
    };
    let [mode, from] = [null, null];
    canvas.addEventListener("pointerdown", (event) => {
      from = place(event);
      mode = this.tool === "wall" ? "wall" : distance(from, this.state) < 13 ? "agent" : "goal";
      canvas.setPointerCapture(event.pointerId);
      if (mode === "wall") this.lay(from);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!mode) return;
      const at = place(event);
      if (mode === "wall") this.lay(at);
      else if (mode === "agent" && distance(at, from) > 3) {
        canvas.classList.add("drag");
        this.turn++;
        this.seen = null;
        [this.expected, this.drift, this.trail] = [[], [], []];
        this.state = [...this.nearest(at), ...this.state.slice(2)];
        this.trail = [this.state.slice(0, 2)];
        this.draw();
      }
    });
    const end = (event) => {
      if (!mode) return;
      const [was, at] = [mode, place(event)];
      mode = null;
      canvas.classList.remove("drag");
      if (was === "wall") {
        this.laying = false;
        this.aim = null;
        this.changed("walls");
      }
      else if (was === "agent" && distance(at, from) > 3) this.set({ agent: at });
      else if (event.type === "pointerup") this.set({ goal: at });
    };
    canvas.addEventListener("pointerup", end);
    canvas.addEventListener("pointercancel", end);
    canvas.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (!way) return;
      event.preventDefault();
      const base = this.goal ?? this.state;
      this.set({ goal: [0, 1].map((i) => Math.min(Math.max(base[i] + 8 * way[i], 12), size - 12)) });
    });
  }

  // Adds a piece of wall at a place, if it does not touch the agent.
  lay([x, y]) {
    const wall = [x - 5, y - 5, x + 5, y + 5], { walls, radius } = this.world, [ax, ay] = this.state;
    const last = walls.at(-1);
    if (last && distance([x, y], [last[0] + 5, last[1] + 5]) < 3.5) return;
    if (Math.abs(ax - x) < 5.5 + radius && Math.abs(ay - y) < 5.5 + radius) return;
    // Fill the gaps that a fast drag leaves.
    if (last && this.laying) {
      const n = Math.ceil(distance([x, y], [last[0] + 5, last[1] + 5]) / 5);
      for (let k = 1; k < n && n < 60; k++) {
        const [px, py] = [0, 1].map((i) => last[i] + 5 + (k / n) * ([x, y][i] - last[i] - 5));
        if (Math.abs(ax - px) >= 5.5 + radius || Math.abs(ay - py) >= 5.5 + radius) walls.push([px - 5, py - 5, px + 5, py + 5]);
      }
    }
    this.laying = true;
    walls.push(wall);
    this.world.changed();
    this.draw();
  }
}
