// The page of `worldmodel view`: `nox -s lint` runs this where npm exists.

const names = (list) => Object.fromEntries(list.split(" ").map((name) => [name, "readonly"]));
const browser = names(
  "Blob ImageData OffscreenCanvas Option URL Worker addEventListener createImageBitmap devicePixelRatio document fetch getComputedStyle innerWidth matchMedia navigator performance self setTimeout clearTimeout window console",
);
const node = names("process Buffer console");

const rules = {
  "no-undef": "error",
  "no-unused-vars": "error",
  "no-const-assign": "error",
  "no-dupe-keys": "error",
  "no-dupe-class-members": "error",
  "no-unreachable": "error",
  "no-fallthrough": "error",
  "no-self-assign": "error",
  "no-shadow": "error",
  "no-var": "error",
  "prefer-const": ["error", { destructuring: "all" }],
  "no-eval": "error",
  "no-implied-eval": "error",
  "no-console": "error",
  eqeqeq: "error",
};

export default [
  { files: ["worldmodel/apps/view/page/*.js"], languageOptions: { sourceType: "module", globals: browser }, rules },
  { files: ["tests/page/*.mjs"], languageOptions: { sourceType: "module", globals: node }, rules },
];
