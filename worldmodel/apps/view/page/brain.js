// The page's side of the worker: every request is a promise.

export class Brain {
  constructor() {
    this.worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
    this.waiting = new Map();
    this.next = 0;
    this.worker.onmessage = ({ data: { id, done, error, seen } }) => {
      const asked = this.waiting.get(id);
      if (seen) return asked?.seen?.(seen);
      this.waiting.delete(id);
      return error ? asked.reject(new Error(error)) : asked.resolve(done);
    };
    this.worker.onerror = (event) => {
      for (const asked of this.waiting.values()) asked.reject(new Error(event.message));
    };
  }

  ask(what, details = {}, seen = null) {
    const id = this.next++;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, seen });
      this.worker.postMessage({ id, ask: what, ...details });
    });
  }
}

// Base of Stage and Recorded: `loop` acts until it is done or `stopping` is set; then `changed` is called.
export class Player {
  play() {
    this.busy = true;
    this.playing ??= this.loop().finally(() => {
      this.playing = null;
      this.busy = false;
      this.changed("stopped");
    });
    return this.playing;
  }

  stop() {
    this.stopping = true;
  }
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
export const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);

export function squared(a, b) {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] - b[i]) ** 2;
  return sum;
}

export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted.length ? sorted[sorted.length >> 1] : null;
}
