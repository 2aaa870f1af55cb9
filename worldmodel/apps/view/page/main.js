// The page: loading, the buttons, and updates of what is shown.

import { Brain, median, sleep } from "./brain.js";
import { costCurve, driftChart, surpriseChart, tiles } from "./charts.js";
import { Backdrop, begin, placeColour, readColours } from "./draw.js";
import { agreement, drawCost, LatentMap, PlaceMap, ways } from "./maps.js";
import { Recorded } from "./recorded.js";
import { Stage } from "./stage.js";
import { makeWorld } from "./worlds.js";

const $ = (id) => document.getElementById(id);
const began = performance.now();
const count = (n) => n.toLocaleString("en");

const brain = new Brain();
let told, world, stage, maps, places, threads, ready;

const settings = () => ({
  planner: $("planner").value,
  samples: Number($("samples").value),
  iterations: Number($("iterations").value),
  horizon: Number($("horizon").value),
  cost: $("costkind").value,
  pace: $("pace").value,
  model: Number($("model").value),
  elites: told.world.planner.elites,
  std: told.world.planner.std,
});

function describe() {
  const [model] = told.models, sees = `${told.world.size} × ${told.world.size} pixels`;
  $("about").textContent = `${told.world.name} · sees ${sees} · ${count(model.parameters)} parameters · embedding of ${model.dim} numbers`;
  for (const H of told.horizons) $("horizon").add(new Option(`${H} (${H * model.block} steps)`, H));
  const { planner } = told.world;
  for (const [id, value] of Object.entries({ planner: planner.name, samples: planner.samples, iterations: planner.iterations, horizon: planner.horizon, costkind: planner.cost }))
    $(id).value = value;
  $("whose").hidden = told.models.length < 2;
  const python = model.python, r2 = model.probe.r2.slice(0, 2).map((v) => v.toFixed(2)).join(" and ");
  const figures = [
    python && { value: `${python.reached} of ${python.of}`, words: `goals reached, planned in Python (${told.machine})` },
    python && { id: "here", words: "of the same goals reached, planned in this browser" },
    { id: "planms", words: "per plan, measured in this browser (median)" },
    model.probe.of === "states" && { value: r2, words: "R² of the linear probe that draws the plans, measured in Python on episodes it was not fitted on" },
  ];
  const worst = Math.min(...model.probe.r2.slice(0, 2));
  $("poor").hidden = worst >= 0.5;
  $("poor").textContent = `The linear probe of this model is poor (R² ${worst.toFixed(1)}), so imagined plans are drawn at wrong places. The planner does not use the probe.`;
  $("glance").innerHTML = tiles(figures.filter(Boolean));
  $("trialtools").hidden = !python;
  const from = told.runtime.at.includes("://") ? ` · onnxruntime-web is fetched from ${new URL(told.runtime.at).host}` : "";
  $("foot").textContent = `worldmodel view · ${told.world.source} · ${Object.entries(told.versions).filter(([, v]) => v !== "not installed").map((v) => v.join(" ")).join(", ")}${from}`;
}

function drawMaps() {
  if (!stage) return;
  const { seen, now, aim, path = [] } = stage, model = settings().model;
  maps[0].draw(model === 0 ? { now, seen, goal: aim?.z, trail: path } : {});
  if (told.models.length > 1) for (const i of [0, 1]) maps[1 + i].draw(model === i ? { now, goal: aim?.z } : {});
}

async function drawCosts() {
  if (!places) return;
  const { goal, state } = stage, turn = stage.turn;
  for (const [i, map] of places.entries()) {
    if (!map.ready || !goal) continue;
    const { z } = await brain.ask("encode", { model: i, frames: world.frame(goal) });
    if (turn !== stage.turn || !map.ready) return;
    const values = map.costs(z), marks = { agent: state, goal };
    if (i === 0) {
      const true_ = ways(world, goal), same = agreement(values, true_);
      $("costs").hidden = false;
      drawCost($("costmap"), world, values, marks);
      drawCost($("truemap"), world, true_, marks);
      $("agree").innerHTML = `Rank correlation of the two maps, measured in this browser: <b>${same.toFixed(2)}</b> (1: lowering the cost always leads along the true way).`;
    }
    if (told.models.length > 1) drawCost($(`cost${i}`), world, values, marks);
  }
}

let surveying;
function survey() {
  clearTimeout(surveying);
  surveying = setTimeout(async () => {
    for (const map of places) if (await map.survey()) await drawCosts();
  }, 250);
}

function status() {
  const { goal, reached, steps, playing } = stage, ms = median(stage.times.slice(-15));
  const time = ms ? ` A plan takes <b>${ms.toFixed(0)} ms</b> here (${threads === 1 ? "one core" : `${threads} threads`}).` : "";
  if (ms && $("planms")) $("planms").textContent = `${ms.toFixed(0)} ms`;
  const words = !goal ? "Click in the world to set a goal. Drag the red disc to move the agent."
    : reached ? `<b>Reached</b> after ${steps} steps.${time} Set another goal.`
      : playing ? `Step ${steps}.${time}` : steps >= 300 ? `Not reached in ${steps} steps. Some goals are too hard for this model${stage.world?.walls?.length ? ", and its training had no wall like yours" : ""}.`
        : steps ? `${steps} steps done. Press Play to continue.${time}` : `The goal is set. Press Play.${time}`;
  $("status").innerHTML = words;
}

function changed(what) {
  if (!stage) return;
  $("play").textContent = stage.playing ? "Pause" : "Play";
  for (const id of ["play", "step", "blind"]) $(id).disabled = !stage.goal || (id === "play" ? !!stage.busy && !stage.playing : !!stage.busy || stage.reached);
  if (what === "error" || what === "first") $("surprisechart").innerHTML = stage.errors.length
    ? surpriseChart(stage.errors, told.models[settings().model].surprise) : '<p class="empty">Press Do nothing, or Play: each block adds a dot.</p>';
  if (["drawn", "goal", "agent", "stopped"].includes(what)) {
    if (stage.iterations.length) $("cost").innerHTML = costCurve(stage.iterations, settings().iterations);
    if (stage.drift.length) $("drift").innerHTML = driftChart(stage.drift);
    drawMaps();
  }
  status();
  if (what === "walls" || what === "maze") {
    $("clear").hidden = !world.walls.length;
    survey();
  }
  if (["goal", "agent", "stopped"].includes(what)) drawCosts();
  const goes = $("auto").getAttribute("aria-pressed") === "true";
  if (what === "goal" && world && goes && ready && !stage.playing && !stage.reached) stage.play();
}

async function trial() {
  const { starts, goals, budget } = told.world.pairs, times = [];
  $("trial").disabled = true;
  let reached = 0;
  for (const [n, from] of starts.entries()) {
    const one = await stage.attempt(from, goals[n], budget, n);
    reached += one.reached;
    times.push(...one.times);
    $("here").textContent = `${reached} of ${n + 1}`;
    $("where").textContent = `${n + 1} of ${starts.length} pairs tried …`;
  }
  stage.times.push(...times.slice(-15));
  $("where").textContent = `Planned in this browser, ${reached} of ${starts.length} goals were reached within ${budget} steps; in Python, with other random numbers, ${told.models[0].python.reached}. A plan took ${median(times).toFixed(0)} ms here (median of ${times.length}).`;
  $("trial").disabled = false;
  return { reached, of: starts.length, planMs: median(times) };
}

function wire() {
  $("play").onclick = () => (stage.playing ? stage.stop() : stage.play());
  const once = async (blind) => {
    stage.busy = true;
    changed("started");
    await stage.plan(blind).finally(() => (stage.busy = false));
    changed("stopped");
  };
  $("step").onclick = () => once(false);
  $("blind").onclick = () => once(true);
  for (const button of document.querySelectorAll("[data-tool]"))
    button.onclick = () => {
      stage.tool = button.dataset.tool;
      for (const other of document.querySelectorAll("[data-tool]")) other.setAttribute("aria-pressed", String(other === button));
    };
  $("auto").onclick = () => $("auto").setAttribute("aria-pressed", String($("auto").getAttribute("aria-pressed") !== "true"));
  $("clear").onclick = () => {
    world.walls.length = 0;
    world.changed();
    stage.set({ agent: stage.state });
    changed("walls");
  };
  $("model").onchange = $("horizon").onchange = async () => {
    stage.errors.length = 0;
    await stage.again();
    changed("first");
  };
  document.addEventListener("keydown", (event) => {
    const busy = event.target.closest?.("button, select, summary, a");
    if (event.key === " " && !busy && stage.goal) {
      event.preventDefault();
      $("play").click();
    }
  });
  $("trial").onclick = trial;
  const redraw = () => {
    readColours();
    stage.draw();
    drawKey?.();
    changed("stopped");
  };
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let wide = innerWidth;
  addEventListener("resize", () => innerWidth !== wide && ((wide = innerWidth), redraw()));
}

let drawKey = null;
function simulated() {
  stage = new Stage($("world"), $("eye"), world, told, brain, settings, changed);
  places = told.models.map((_, i) => new PlaceMap(brain, world, i));
  const backdrop = new Backdrop();
  drawKey = () => {
    const g = begin($("key"), world.size), n = 40, low = 11, wide = (world.size - 2 * low) / n;
    for (let p = 0; p < n * n; p++) {
      g.fillStyle = placeColour((p % n) / (n - 1), Math.floor(p / n) / (n - 1));
      g.fillRect(low + (p % n) * wide - 0.2, low + Math.floor(p / n) * wide - 0.2, wide + 0.4, wide + 0.4);
    }
    backdrop.draw(g, world, { floor: "" });
  };
  drawKey();
  $("surprise").hidden = false;
  const idle = async (meddle, note) => {
    for (const id of ["still", "teleport", "recolour"]) $(id).disabled = true;
    for (let k = 0; k < 2; k++) await stage.rest();
    await stage.rest(meddle, note);
    for (let k = 0; k < 2; k++) await stage.rest();
    for (const id of ["still", "teleport", "recolour"]) $(id).disabled = false;
  };
  $("still").onclick = () => idle(null, "");
  $("teleport").onclick = () => idle(() => {
    const { size } = world, far = (at) => Math.hypot(at[0] - stage.state[0], at[1] - stage.state[1]) > size / 3;
    let at;
    do at = [0, 1].map(() => 12 + Math.random() * (size - 24));
    while (!far(at) || !world.free(...at));
    stage.state = [...at, ...stage.state.slice(2)];
    stage.trail = [at];
    [stage.seen, stage.expected, stage.drift] = [null, [], []];
  }, "teleported");
  $("recolour").onclick = () => {
    const blue = $("recolour").getAttribute("aria-pressed") !== "true";
    $("recolour").setAttribute("aria-pressed", String(blue));
    return idle(() => stage.toggle(blue), blue ? "blue" : "red");
  };
  if (told.world.kind === "maze") {
    const numbers = Object.keys(told.world.layouts).map(Number);
    $("other").hidden = numbers.length < 2;
    $("other").onclick = () => stage.set({ maze: numbers[(numbers.indexOf(world.layout) + 1) % numbers.length] });
  }
  $("without").hidden = told.models.length < 2;
  if (told.models[1]) {
    const [a, b] = told.models.map((m) => (m.python ? `${m.python.reached} of ${m.python.of}` : "not tried"));
    $("collapse").textContent = `Goals reached, planned in Python: ${a} with SIGReg, ${b} without. Choose “without SIGReg” in the settings of the planner to watch that model.`;
  }
}

async function start() {
  told = await fetch("view.json").then((answer) => answer.json());
  world = makeWorld(told.world);
  readColours();
  describe();
  const [{ map }] = told.models;
  maps = [new LatentMap($("map"), map)];
  maps.push(...(told.models[1] ? told.models.map((m, i) => new LatentMap($(`map${i}`), m.map, maps[0])) : []));
  $("mapshare").textContent = `${told.models[0].map.points.length} embeddings. Two directions hold ${Math.round(100 * map.share)} % of their variance. The red dot is the present, the ring is the goal, the fan shows imagined plans.`;
  if (world) simulated();
  else stage = new Recorded($("world"), $("strip"), told, brain, settings, changed);
  wire();
  changed("first");
  stage.draw();
  // The matrix products of a small model are too small for several threads.
  const many = told.models[0].parameters > 4e6 ? Math.min(navigator.hardwareConcurrency || 1, 4) : 1;
  ({ threads } = await brain.ask("load", { about: told, threads: many }));
  await brain.ask("warm", { horizon: settings().horizon });
  await stage.begin?.();
  viewer.readyMs = performance.now() - began;
  ready = true;
  changed("ready");
  if (world) survey();
}

const viewer = (window.viewer = {
  play: () => stage.play(),
  state: () => stage.report(),
  trial,
  settle: async () => {
    while (places?.some((map) => !map.ready)) await sleep(50);
  },
});
viewer.ready = start();
viewer.ready.catch((error) => {
  $("failed").hidden = false;
  $("failed").textContent = `The model could not be loaded: ${error.message.split("\n")[0]}. Serve this folder by “worldmodel view”, or by any web server; a browser does not let a local file load other files.`;
  $("status").textContent = "";
  throw error;
});
