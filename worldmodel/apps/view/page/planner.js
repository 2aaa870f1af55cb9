// The planners of `planners/cem.py` and `planners/icem.py`, for one problem, in float32.
// Letters: S candidates, H horizon, A action dims, K elites, D embedding dims.
// Plans are Float32Array [H A], candidates Float32Array [S H A].

const f = Math.fround;

// Standard normal numbers from a seed, by mulberry32 and Box-Muller.
export function normals(seed) {
  let state = seed >>> 0, spare = null;
  const uniform = () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
  return (count) =>
    Float32Array.from({ length: count }, () => {
      if (spare !== null) {
        const kept = spare;
        spare = null;
        return kept;
      }
      const radius = Math.sqrt(-2 * Math.log(1 - uniform())), angle = 2 * Math.PI * uniform();
      spare = radius * Math.sin(angle);
      return radius * Math.cos(angle);
    });
}

// The box of actions in the model's units.
export function boxOf({ low, high, mean, std }) {
  const edge = (values) => Float32Array.from(values, (v, i) => (v - mean[i]) / std[i]);
  return { low: edge(low), high: edge(high) };
}

export function project(actions, box) {
  const A = box.low.length;
  return actions.map((a, i) => Math.min(Math.max(a, box.low[i % A]), box.high[i % A]));
}

// Converts actions from the model's units to the world's.
export function outside(actions, { low, high, mean, std }) {
  const at = (a, i) => Math.min(Math.max(f(f(a * f(std[i])) + f(mean[i])), low[i]), high[i]);
  return Array.from(actions, (a, i) => at(a, i % mean.length));
}

// A plan moved `steps` earlier; it ends with zeros, or with its last action again.
export function shift(plan, steps, A, again = false) {
  const out = new Float32Array(plan.length);
  out.set(plan.subarray(steps * A));
  if (again)
    for (let h = plan.length - steps * A; h < plan.length; h += A) out.set(plan.subarray(-A), h);
  return out;
}

// The K cheapest candidates, the best first; costs that are not finite come last.
export function lowest(candidates, costs, K) {
  const cost = (s) => (Number.isFinite(costs[s]) ? costs[s] : Infinity);
  const order = Array.from(costs, (_, s) => s).sort((a, b) => cost(a) - cost(b) || a - b).slice(0, K);
  const size = candidates.length / costs.length;
  const one = (s) => candidates.subarray(s * size, (s + 1) * size);
  return { order, elites: order.map((s) => one(cost(s) === Infinity ? order[0] : s)) };
}

function gaussian(elites, divisor) {
  const K = elites.length, mean = new Float32Array(elites[0].length), std = mean.slice();
  for (let i = 0; i < mean.length; i++) {
    let sum = 0, square = 0;
    for (const e of elites) sum = f(sum + e[i]);
    mean[i] = sum / K;
    for (const e of elites) square = f(square + f(f(e[i] - mean[i]) ** 2));
    std[i] = Math.sqrt(f(square / divisor));
  }
  return { mean, std };
}

const around = (mean, std, z, S) =>
  Float32Array.from({ length: S * mean.length }, (_, i) => f(f(z[i] * std[i % mean.length]) + mean[i % mean.length]));

export class CEM {
  constructor({ samples = 64, elites = 8, std = 1 } = {}) {
    Object.assign(this, { samples, elites, std });
  }

  init(plan) {
    return { mean: plan, std: plan.map(() => this.std), best: plan };
  }

  ask({ mean, std }, draw) {
    const out = around(mean, std, draw(this.samples * mean.length), this.samples);
    out.set(mean);
    return out;
  }

  tell(state, candidates, costs) {
    const { order, elites } = lowest(candidates, costs, this.elites);
    return { ...gaussian(elites, this.elites - 1), order, best: elites[0].slice() };
  }

  plan(state) {
    return state.mean;
  }
}

// L [H, H] of noise whose power falls as 1 / f^β: `planners.Colored(beta, unit=False)`.
export function colored(H, beta) {
  const columns = [];
  let power = 0;
  for (let k = 0; k <= Math.floor(H / 2); k++) {
    const alone = k === 0 || k === H / 2, weight = Math.max(k, 1) ** -beta;
    if (!beta || H === 1) power += weight * (alone ? 1 : 2);
    else if (k) power += weight * (alone ? 0.5 : 2);
    const scale = Math.sqrt(weight * (alone ? 1 : 2));
    for (const wave of alone ? [Math.cos] : [Math.cos, Math.sin])
      columns.push(Array.from({ length: H }, (_, h) => scale * wave((2 * Math.PI * k * h) / H)));
  }
  return Array.from({ length: H }, (_, h) => columns.map((c) => f(c[h] / Math.sqrt(power))));
}

export class ICEM {
  constructor({ samples = 64, elites = 8, std = 1, dims = 2, beta = 2, momentum = 0.1, keep = 0.3 } = {}) {
    Object.assign(this, { samples, elites, std, dims, beta, momentum });
    this.kept = Math.ceil(keep * elites);
  }

  init(plan, previous = null, steps = 0) {
    const moved = (one) => shift(one, steps, this.dims, true);
    const mean = previous && steps ? moved(previous.mean) : plan;
    return { mean, std: plan.map(() => this.std), elites: previous?.elites?.map(moved) ?? [], best: plan };
  }

  ask({ mean, std, elites }, draw) {
    const S = this.samples, A = this.dims, H = mean.length / A, L = colored(H, this.beta);
    const white = draw(S * mean.length), noise = new Float32Array(white.length);
    for (let s = 0; s < S; s++)
      for (let h = 0; h < H; h++)
        for (let j = 0; j < H; j++)
          for (let a = 0; a < A; a++)
            noise[(s * H + h) * A + a] += L[h][j] * white[(s * H + j) * A + a];
    const out = around(mean, std, noise, S);
    out.set(mean);
    elites.slice(0, this.kept).forEach((one, k) => out.set(one, (S - this.kept + k) * mean.length));
    return out;
  }

  tell(state, candidates, costs) {
    const { order, elites } = lowest(candidates, costs, this.elites);
    const { mean, std } = gaussian(elites, this.elites);
    const α = this.momentum, mix = (old, now) => now.map((v, i) => α * old[i] + (1 - α) * v);
    const kept = elites.slice(0, Math.max(this.kept, 1)).map((one) => one.slice());
    return { mean: mix(state.mean, mean), std: mix(state.std, std), elites: kept, order, best: kept[0] };
  }

  plan(state) {
    return state.best;
  }
}

// Costs [S] of predicted embeddings [S, H, D]: last, mean, or nearest plus mean / 20.
export function costsOf(futures, goal, H, kind, scale = null) {
  const D = goal.length, S = futures.length / (H * D), out = new Float32Array(S);
  for (let s = 0; s < S; s++) {
    let [least, sum, last] = [Infinity, 0, 0];
    for (let h = kind === "last" ? H - 1 : 0; h < H; h++) {
      last = 0;
      for (let d = 0, at = (s * H + h) * D; d < D; d++) {
        const off = scale ? (futures[at + d] - goal[d]) / scale[d] : futures[at + d] - goal[d];
        last += off * off;
      }
      least = Math.min(least, last);
      sum += last;
    }
    out[s] = kind === "last" ? last : kind === "mean" ? sum / H : least + sum / H / 20;
  }
  return out;
}

// Holds one raw action for a whole block: [S, H, A] -> [S, H, block A].
export function held(candidates, A, block) {
  const out = new Float32Array(candidates.length * block);
  for (let i = 0; i < candidates.length; i += A)
    for (let k = 0; k < block; k++) out.set(candidates.subarray(i, i + A), i * block + k * A);
  return out;
}

// One search: `score(candidates)` gives costs, `seen` gets each iteration.
export async function search(method, state, { iterations, box, draw, score, seen = () => {} }) {
  for (let i = 0; i < iterations; i++) {
    const candidates = project(method.ask(state, draw), box);
    const { costs, ...more } = await score(candidates);
    state = method.tell(state, candidates, costs);
    seen({ iteration: i, costs, elites: state.order, ...more });
  }
  return { state, plan: project(method.plan(state), box) };
}
