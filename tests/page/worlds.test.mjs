// The page's worlds beside fixtures that Python wrote: PAGE and FIXTURES name the two folders.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

const { Maze, TwoRoom, trueDistance } = await import(`${process.env.PAGE}/worlds.js`);
const fixture = (name) => readFileSync(`${process.env.FIXTURES}/${name}`);
const told = JSON.parse(fixture("worlds.json"));

for (const name of ["two-room", "maze"]) {
  const { states, actions, layouts, side } = told[name];
  const make = () => (name === "maze" ? new Maze(side, layouts) : new TwoRoom(side));

  test(`${name}: 1,000 random actions lead to Python's states, bit for bit`, () => {
    const world = make();
    let steps = 0;
    for (const [t, before] of states.slice(0, -1).entries())
      for (const [n, state] of before.entries()) {
        assert.deepEqual(world.move(state, actions[t][n]), states[t + 1][n], `step ${t} of agent ${n}`);
        steps++;
      }
    assert.ok(steps >= 1000);
  });

  test(`${name}: every pixel of every frame is Python's`, () => {
    const world = make(), pixels = fixture(`${name}.bin`), size = 3 * side * side, N = states[0].length;
    assert.equal(pixels.length, states.length * N * size);
    // Agent by agent: a maze is drawn anew for each layout.
    for (let n = 0; n < N; n++)
      for (const [t, now] of states.entries()) {
        const wanted = pixels.subarray((t * N + n) * size, (t * N + n + 1) * size);
        assert.ok(wanted.equals(world.frame(now[n])), `frame ${t} of agent ${n}`);
      }
  });
}

test("a wall drawn by hand stops the disc on every side, and shows in the picture", () => {
  const world = new TwoRoom(64), plain = world.frame([50, 50]);
  world.walls.push([40, 90, 60, 110]);
  world.changed();
  assert.notDeepEqual(world.frame([50, 50]), plain);
  for (const [from, way] of [[[50, 70], [0, 1]], [[50, 130], [0, -1]], [[25, 100], [1, 0]], [[75, 100], [-1, 0]]]) {
    let state = from;
    for (let k = 0; k < 20; k++) state = world.move(state, way);
    if (from[0] === 50 && from[1] === 70) assert.deepEqual(state, [50, 83]);
    const inside = state[0] > 33 && state[0] < 67 && state[1] > 83 && state[1] < 117;
    assert.ok(!inside, `${from} came to ${state}`);
    assert.ok(world.free(...state) || Math.min(Math.abs(state[0] - 33), Math.abs(state[0] - 67), Math.abs(state[1] - 83), Math.abs(state[1] - 117)) < 1e-6);
  }
});

test("the true way leads around the wall, and is straight within a room", () => {
  const world = new TwoRoom(64), cells = 56, step = 224 / cells;
  const way = trueDistance(world, [180, 40], cells);
  const at = (x, y) => way[Math.floor(y / step) * cells + Math.floor(x / step)];
  assert.ok(Math.abs(at(180, 140) - 100) < 6);
  // Through the door at (112, 112): 2 × hypot(68, 72) at least.
  assert.ok(at(44, 40) > 0.98 * 2 * Math.hypot(68, 72) - 12 && at(44, 40) < 1.1 * 2 * Math.hypot(68, 72));
});
