// The worker thread of the models: it encodes frames, searches for plans and rolls them out.

import { boxOf, CEM, costsOf, held, ICEM, normals, outside, search, shift } from "./planner.js";

let ort, told;
const models = [];
const controllers = new Map(); // what a planner knows from one step to the next, by name

// Loads files of the runtime, from beside the page or from the public host, and checks their hashes.
async function runtime({ at, files }, threads) {
  const [module, wasm] = Object.keys(files);
  const base = new URL(at, self.location.href).href;
  let code = base + module, binary = base + wasm;
  if (!base.startsWith(self.location.origin)) {
    const [a, b] = await Promise.all(
      [module, wasm].map(async (n) => (await fetch(base + n, { integrity: files[n] })).arrayBuffer()),
    );
    code = URL.createObjectURL(new Blob([a], { type: "text/javascript" }));
    binary = URL.createObjectURL(new Blob([b], { type: "application/wasm" }));
  }
  ort = await import(code);
  ort.env.wasm.wasmPaths = { wasm: binary };
  ort.env.wasm.numThreads = self.crossOriginIsolated ? threads : 1;
}

const open = async (file) => {
  const found = await fetch(file);
  if (!found.ok) throw new Error(`${file}: ${found.status}`);
  return ort.InferenceSession.create(new Uint8Array(await found.arrayBuffer()));
};

class Model {
  constructor(about) {
    this.about = about;
    this.futures = new Map();
  }

  async encode(frames) {
    this.encoder ??= open(`./${this.about.folder}/encoder.onnx`);
    const side = told.world.size, size = 3 * side * side, num = frames.length / size;
    const z = [], places = [];
    for (let n = 0; n < num; n += 32) {
      const some = Math.min(32, num - n);
      const input = new ort.Tensor("uint8", frames.subarray(n * size, (n + some) * size), [some, 3, side, side]);
      const out = await (await this.encoder).run({ frames: input });
      z.push(out.embedding.data);
      places.push(out.places.data);
    }
    return { z: join(z), places: join(places) };
  }

  async imagine(z, actions, H) {
    if (!this.futures.has(H)) this.futures.set(H, open(`./${this.about.folder}/futures-${H}.onnx`));
    const session = await this.futures.get(H);
    const A = told.world.action.low.length * this.about.block;
    const out = await session.run({
      z: new ort.Tensor("float32", z, [1, z.length]),
      actions: new ort.Tensor("float32", actions, [actions.length / (H * A), H, A]),
    });
    return { z: out.embedding.data, places: out.places.data };
  }
}

function join(parts) {
  const out = new Float32Array(parts.reduce((n, p) => n + p.length, 0));
  parts.reduce((at, p) => (out.set(p, at), at + p.length), 0);
  return out;
}

// Embeddings [n, D] in the two directions of the map, [n, 2].
function flatten(z, { middle, components }) {
  const D = middle.length, out = new Float32Array((2 * z.length) / D);
  for (let n = 0; n < out.length / 2; n++)
    for (let c = 0; c < 2; c++)
      for (let d = 0; d < D; d++) out[2 * n + c] += (z[n * D + d] - middle[d]) * components[c][d];
  return out;
}

const answers = {
  async load({ about, threads }) {
    told = about;
    await runtime(about.runtime, threads);
    models.push(...about.models.map((m) => new Model(m)));
    return { threads: ort.env.wasm.numThreads };
  },

  // Opens sessions and runs them once before they are needed.
  async warm({ model = 0, horizon }) {
    const { about } = models[model], A = told.world.action.low.length * about.block;
    const size = 3 * told.world.size ** 2;
    await models[model].encode(new Uint8Array(2 * size));
    await models[model].imagine(new Float32Array(about.dim), new Float32Array(64 * horizon * A), horizon);
  },

  encode: ({ model = 0, frames }) => models[model].encode(frames),

  // Rolls out raw actions [H, A], in the world's units, from an embedding.
  async follow({ model = 0, z, raw, horizon }) {
    const { mean, std } = told.world.action, A = mean.length;
    const scaled = Float32Array.from(raw, (v, i) => (v - mean[i % A]) / std[i % A]);
    return models[model].imagine(z, scaled, horizon);
  },

  forget({ name }) {
    controllers.delete(name);
  },

  // One control step: encode the frame, search, and return the actions until the next frame.
  async plan({ id, model: index = 0, name = "page", frame, z: given, goal, settings, seed = 0, quiet }) {
    const began = performance.now(), model = models[index], { about } = model, { action } = told.world;
    const { horizon: H, samples, iterations, elites, cost, std = 1 } = settings, A = action.low.length;
    const now = given ? { z: given } : await model.encode(frame), [z, Q] = [now.z, about.probe.reads];
    const kind = cost === "probe" ? "nearest" : cost, scale = about.scale;
    const method = settings.planner === "icem" ? new ICEM({ samples, elites, std, dims: A }) : new CEM({ samples, elites, std });
    const key = [settings.planner, H, A].join(), before = controllers.get(name);
    const known = before?.key === key ? before : null, calls = (known?.calls ?? 0) + 1;
    const start = known ? shift(known.plan, 1, A) : new Float32Array(H * A);
    const score = async (candidates) => {
      const out = await model.imagine(z, held(candidates, A, about.block), H);
      const costs = cost === "probe" ? costsOf(out.places, goal.places, H, kind, scale) : costsOf(out.z, goal.z, H, kind);
      return { costs, places: out.places, latent: quiet ? null : flatten(out.z, about.map) };
    };
    const seen = (one) => quiet || self.postMessage({ id, seen: { ...one, best: Math.min(...one.costs), Q } });
    const draw = normals((seed * 7919 + calls) * 2654435761);
    const found = await search(method, method.init(start, known?.state, 1), { iterations, box: boxOf(action), draw, score, seen });
    const ms = performance.now() - began;
    controllers.set(name, { key, calls, plan: found.plan, state: found.state });
    const expected = quiet ? null : await model.imagine(z, held(found.plan, A, about.block), H);
    return {
      ms,
      action: outside(found.plan.subarray(0, A), action),
      actions: outside(found.plan, action),
      z,
      place: now.places,
      expected,
    };
  },
};

async function answer(data) {
  try {
    self.postMessage({ id: data.id, done: await answers[data.ask](data) });
  } catch (error) {
    self.postMessage({ id: data.id, error: String(error?.stack ?? error) });
  }
}

// One request after the other: a session runs one at a time.
let last = Promise.resolve();
self.onmessage = ({ data }) => {
  last = last.then(() => answer(data));
};
