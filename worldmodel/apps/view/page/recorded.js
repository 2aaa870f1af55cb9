// A world without a simulator: recorded episodes; plans are imagined, not executed.

import { Player, distance, median, squared } from "./brain.js";
import { begin, colour, disc, fan, path, placeColour, ring } from "./draw.js";

const MOST_BLOCKS = 10;

export class Recorded extends Player {
  constructor(canvas, strip, told, brain, settings, changed) {
    super();
    Object.assign(this, { canvas, strip, told, brain, settings, changed, episode: 0 });
    Object.assign(this, { times: [], errors: [], turn: 0, frames: [], now: null, at: 0 });
    this.clear();
    for (const id of ["hands", "keyfigure", "blind"]) document.getElementById(id).hidden = true;
    document.getElementById("heading").textContent = "Choose a frame as the goal and watch the model plan.";
    document.getElementById("unit").textContent = "distance after recorded actions, as the probe reads it";
    document.getElementById("try").textContent = "The page has no simulator of this world, so plans are imagined and not executed. The frame shown is the recorded one with the nearest embedding. Click a frame below the plot to start from it. Click it again, or click in the plot, to make a frame the goal.";
    strip.hidden = false;
    canvas.setAttribute("aria-label", "Places that the probe reads: click near a dot to make its frame the goal");
    canvas.addEventListener("pointerup", (event) => {
      const box = canvas.getBoundingClientRect();
      this.pick([(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height].map((v) => v * 100));
    });
    canvas.addEventListener("keydown", (event) => {
      const way = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!way || !this.frames.length) return;
      event.preventDefault();
      this.aimAt((this.goalIndex + way + this.frames.length) % this.frames.length);
    });
  }

  clear() {
    this.turn++;
    Object.assign(this, { seen: null, iterations: [], expected: [], drift: [], steps: 0, reached: false, path: [], imagined: [], aim: null });
    this.brain.ask("forget", { name: "page" });
  }

  // Loads and encodes the frames of all episodes, and shows the first episode.
  async begin() {
    const { num, frames: T, raw } = this.told.episodes, side = this.told.world.size;
    for (let e = 0; e < num; e++) {
      const image = await createImageBitmap(await (await fetch(`episode-${e}.png`)).blob());
      const canvas = new OffscreenCanvas(side * T, side), g = canvas.getContext("2d", { willReadFrequently: true });
      g.drawImage(image, 0, 0);
      for (let t = 0; t < T; t++) {
        const { data } = g.getImageData(t * side, 0, side, side), frame = new Uint8Array(3 * side * side);
        for (let p = 0; p < side * side; p++) for (let c = 0; c < 3; c++) frame[c * side * side + p] = data[4 * p + c];
        this.frames.push({ e, t, frame, image: g.getImageData(t * side, 0, side, side) });
      }
    }
    await this.encode();
    this.raw = raw;
    this.goalIndex = T - 1;
    this.show();
    this.start(0);
  }

  async encode() {
    const size = 3 * this.told.world.size ** 2, frames = new Uint8Array(this.frames.length * size);
    this.frames.forEach((one, n) => frames.set(one.frame, n * size));
    const { z, places } = await this.brain.ask("encode", { model: this.settings().model, frames });
    const D = z.length / this.frames.length, Q = places.length / this.frames.length;
    this.frames.forEach((one, n) =>
      Object.assign(one, { z: z.slice(n * D, (n + 1) * D), place: Array.from(places.slice(n * Q, (n + 1) * Q)) }));
    const values = (i) => this.frames.map((one) => one.place[Math.min(i, one.place.length - 1)]);
    const [x, y] = [values(0), values(1)];
    this.box = [Math.min(...x), Math.max(...x), Math.min(...y), Math.max(...y)];
    const gaps = this.frames.map((one, n) => (one.t ? squared(one.z, this.frames[n - 1].z) : null));
    this.near = median(gaps.filter((gap) => gap !== null));
  }

  // Another model, or another horizon.
  async again() {
    await this.encode();
    this.start(this.at);
  }

  spot(place) {
    const [x0, x1, y0, y1] = this.box, wide = Math.max(x1 - x0, y1 - y0, 1e-6) * 1.15;
    const [x, y] = [place[0], place[Math.min(1, place.length - 1)]];
    return [50 + (100 * (x - (x0 + x1) / 2)) / wide, 50 + (100 * (y - (y0 + y1) / 2)) / wide];
  }

  // Frames of one episode: a click makes one the start; Shift or a second click makes it the goal.
  show() {
    this.strip.replaceChildren();
    const { side = this.told.world.size } = this;
    this.frames.forEach((one, n) => {
      if (one.e !== this.episode) return;
      const canvas = Object.assign(document.createElement("canvas"), { width: side, height: side, tabIndex: 0 });
      canvas.getContext("2d").putImageData(one.image, 0, 0);
      canvas.setAttribute("role", "button");
      canvas.setAttribute("aria-label", `frame ${one.t}: start here; with Shift, make it the goal`);
      canvas.onclick = (event) => (event.shiftKey || n === this.at ? this.aimAt(n) : this.start(n));
      canvas.onkeydown = (event) => event.key === "Enter" && canvas.onclick(event);
      one.canvas = canvas;
      this.strip.append(canvas);
    });
    const next = Object.assign(document.createElement("button"), { textContent: "Next episode" });
    next.onclick = () => {
      this.episode = (this.episode + 1) % this.told.episodes.num;
      this.show();
      const first = this.frames.findIndex((one) => one.e === this.episode);
      this.goalIndex = first + this.told.episodes.frames - 1;
      this.start(first);
    };
    this.strip.append(next);
  }

  get goal() {
    return this.frames[this.goalIndex]?.place ?? null;
  }

  report() {
    const { reached, steps } = this;
    return { agent: this.place ?? null, goal: this.goal, reached, steps, planMs: median(this.times.slice(-15)) };
  }

  start(n) {
    this.at = n;
    this.clear();
    this.now = this.frames[n].z;
    this.place = this.frames[n].place;
    this.aim = { z: this.frames[this.goalIndex].z, places: Float32Array.from(this.goal) };
    this.changed("goal");
    this.draw();
    this.replay();
  }

  aimAt(n) {
    this.goalIndex = n;
    this.start(this.at);
  }

  pick(spot) {
    if (!this.frames.length) return;
    const off = this.frames.map((one) => distance(this.spot(one.place), spot));
    this.aimAt(off.indexOf(Math.min(...off)));
  }

  // Compares the predictions for the recorded actions with the recorded frames.
  async replay() {
    const { turn, at } = this, { e, t, z } = this.frames[at], { model, horizon: H } = this.settings();
    const { block } = this.told.models[model];
    const raw = this.raw[e].slice(t * block, (t + H) * block).flat();
    if (raw.length < H * block * this.told.world.action.low.length) return;
    const ahead = await this.brain.ask("follow", { model, z, raw, horizon: H });
    if (turn !== this.turn) return;
    const Q = ahead.places.length / H, D = z.length;
    for (let h = 0; h < H && this.frames[at + h + 1]?.e === e; h++) {
      const real = this.frames[at + h + 1], imagined = Array.from(ahead.places.slice(h * Q, h * Q + Q));
      this.drift.push({ imagined, real: real.place, off: distance(imagined, real.place) });
      if (h === 0) this.errors.push({ error: squared(real.z, ahead.z.slice(0, D)), note: "" });
    }
    this.changed("drawn");
    this.draw();
  }

  async plan() {
    const { turn } = this, { horizon: H, model } = this.settings(), queue = [];
    const found = await this.brain.ask("plan", { model, z: this.now, goal: this.aim, settings: this.settings(), seed: 1 }, (one) => queue.push(one));
    if (turn !== this.turn) return;
    this.times.push(found.ms);
    [this.iterations, this.seen, this.origin] = [queue, queue.at(-1), this.place];
    const D = this.now.length, Q = found.expected.places.length / H;
    this.imagined.push(this.place);
    this.path.push(this.now);
    this.now = found.expected.z.slice(0, D);
    this.place = Array.from(found.expected.places.slice(0, Q));
    this.steps += this.told.models[model].block;
    this.reached = squared(this.now, this.aim.z) < this.near;
    this.draw();
    this.changed("drawn");
  }

  async loop() {
    this.stopping = false;
    for (let n = 0; n < MOST_BLOCKS && !this.stopping && !this.reached; n++) {
      await this.plan();
      await new Promise((done) => setTimeout(done, this.settings().pace === "slow" ? 500 : 0));
    }
    return this.report();
  }

  draw() {
    const g = begin(this.canvas, 100);
    if (!this.box) return;
    const [x0, x1, y0, y1] = this.box;
    for (const { place } of this.frames)
      disc(g, this.spot(place), 0.9, placeColour((place[0] - x0) / (x1 - x0 || 1), ((place[1] ?? place[0]) - y0) / (y1 - y0 || 1)));
    if (this.seen) {
      const { Q } = this.seen, n = this.seen.places.length / Q, places = new Float32Array(2 * n);
      for (let i = 0; i < n; i++) places.set(this.spot(Array.from(this.seen.places.slice(i * Q, i * Q + Q))), 2 * i);
      fan(g, this.spot(this.origin), { ...this.seen, places, Q: 2 }, 0.35);
    }
    path(g, [...this.imagined, this.place].filter(Boolean).map((p) => this.spot(p)), colour("c3"), 1);
    for (const { imagined, real } of this.drift) {
      path(g, [this.spot(imagined), this.spot(real)], colour("c3"), 0.4);
      ring(g, this.spot(imagined), 1, colour("c3"), 0.5);
    }
    ring(g, this.spot(this.goal), 2.6, colour("c2"), 1);
    disc(g, this.spot(this.place), 2, colour("c1"));
    const closest = this.frames.reduce((a, b) => (squared(a.z, this.now) < squared(b.z, this.now) ? a : b));
    for (const [id, { image }] of [["eye", closest], ["wish", this.frames[this.goalIndex]]]) {
      const canvas = Object.assign(document.getElementById(id), { width: image.width, height: image.height });
      canvas.getContext("2d").putImageData(image, 0, 0);
    }
    this.frames.forEach((one, n) => {
      one.canvas?.classList.toggle("now", n === this.at);
      one.canvas?.classList.toggle("goal", n === this.goalIndex);
    });
  }
}
