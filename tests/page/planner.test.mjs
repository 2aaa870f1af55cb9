// The page's planners beside what `planners` does with the same normal numbers.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const page = await import(`${process.env.PAGE}/planner.js`);
const told = JSON.parse(readFileSync(`${process.env.FIXTURES}/planners.json`));

const close = (got, wanted, what) => {
  assert.equal(got.length, wanted.length);
  wanted.forEach((v, i) => assert.ok(Math.abs(got[i] - v) <= 1e-5 * Math.max(1, Math.abs(v)), `${what}[${i}]: ${got[i]} for ${v}`));
};

for (const [name, kind] of [["cem", page.CEM], ["icem", page.ICEM], ["even", page.ICEM]]) {
  test(`${name}: the same noise leads to the same plan as in Python, iteration by iteration`, async () => {
    const { start, noise, target, box, settings, plans, candidates } = told[name];
    const method = new kind(settings);
    let state = method.init(Float32Array.from(start)), i = 0;
    for (; i < noise.length; i++) {
      const asked = page.project(method.ask(state, () => Float32Array.from(noise[i])), box);
      close(asked, candidates[i], `candidates of ${i}`);
      const size = start.length;
      const costs = Float32Array.from({ length: asked.length / size }, (_, s) =>
        target.reduce((sum, v, d) => sum + (asked[s * size + d] - v) ** 2, 0));
      state = method.tell(state, asked, costs);
      close(page.project(method.plan(state), box), plans[i], `plan of ${i}`);
    }
    assert.ok(i >= 4);
  });
}

test("the costs of futures are those of worldmodel.goals.near", () => {
  const { futures, goal, H, costs } = told.costs;
  for (const [kind, wanted] of Object.entries(costs)) close(page.costsOf(Float32Array.from(futures), goal, H, kind), wanted, kind);
});

test("bounds and units are those of planners.Bounds", () => {
  const { action, box, inside, raw } = told.bounds, got = page.boxOf(action);
  close(got.low, box[0], "low");
  close(got.high, box[1], "high");
  close(page.outside(inside, action), raw, "raw");
});

test("normal numbers have mean 0 and variance 1, and a seed repeats them", () => {
  const z = page.normals(5)(20000), mean = z.reduce((a, b) => a + b) / z.length;
  const variance = z.reduce((a, b) => a + (b - mean) ** 2, 0) / z.length;
  assert.ok(Math.abs(mean) < 0.03 && Math.abs(variance - 1) < 0.04, `${mean} ${variance}`);
  assert.deepEqual(page.normals(5)(9), z.slice(0, 9));
  assert.notDeepEqual(page.normals(6)(9), z.slice(0, 9));
});

test("a cost that is not a number is never among the elites' best", () => {
  const { order } = page.lowest(Float32Array.from([0, 1, 2, 3]), [NaN, 2, 1, Infinity], 3);
  assert.deepEqual(order.slice(0, 2), [2, 1]);
});
