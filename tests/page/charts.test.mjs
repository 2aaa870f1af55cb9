// Whatever texts a run brings, they are shown as texts.
import assert from "node:assert/strict";
import { test } from "node:test";

const { tiles } = await import(`${process.env.PAGE}/charts.js`);

test("a hostile figure or explanation makes no tag", () => {
  const hostile = `</b><script>parent.ran=1</script>"'><img src=x onerror=parent.ran=1>`;
  const page = tiles([{ value: hostile, words: hostile }, { id: "here", words: "later" }]);
  const tags = (text) => text.match(/<\/?[a-z]+/g);
  assert.deepEqual(tags(page), tags(tiles([{ value: "1", words: "x" }, { id: "here", words: "later" }])));
  assert.ok(page.includes("&#60;script&#62;parent.ran=1"));
});
