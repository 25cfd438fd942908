import { expect, it } from "vitest";
import { pressed, sorted } from "./sorting";

const rows = [3, null, 1, Number.NaN, 3, 2].map((value, index) => ({ index, value }));
const order = (descending: boolean) => sorted(rows, descending, ({ value }) => value).map(({ index }) => index);

it("what was not measured comes last either way, equals stay in order", () => {
  expect(order(false)).toEqual([2, 5, 0, 4, 1, 3]);
  expect(order(true)).toEqual([0, 4, 5, 2, 1, 3]);
});

it("a head that is pressed sorts its usual way first, then the other way round", () => {
  type Key = "name" | "time";
  const start: { key: Key; descending: boolean } = { key: "name", descending: false };
  const byTime = pressed<Key>(start, "time", false);
  expect(byTime).toEqual({ key: "time", descending: true });
  expect(pressed<Key>(byTime, "time", false)).toEqual({ key: "time", descending: false });
  expect(pressed<Key>(byTime, "name", true)).toEqual({ key: "name", descending: false });
});
