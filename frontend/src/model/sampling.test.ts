import { expect, it } from "vitest";
import { costText, samplingText } from "./sampling";

const NOTHING = { every: null, overhead_budget: null, steps: null };
const typed = (text: string) => text.replaceAll("\u202f", "_");

it.each([
  [{ ...NOTHING, overhead_budget: 0.02 }, "budget 2_%"],
  [{ ...NOTHING, every: 1 }, "every step"],
  [{ ...NOTHING, every: 10 }, "every 10 steps"],
  [{ ...NOTHING, steps: [3, 7, 9] }, "steps 3, 7, 9"],
  [{ ...NOTHING, steps: [3] }, "step 3"],
  [{ ...NOTHING, steps: [] }, "no step"],
  [{ ...NOTHING, steps: Array.from({ length: 40 }, (_, i) => i) }, "steps 0, 1, 2, 3, 4, 5, 6, 7, … (40 in all)"],
  [NOTHING, "n/a"],
])("%o is sampled as %s", (session, text) => {
  expect(typed(samplingText(session))).toBe(text);
});

it("the cost is told with its budget, and where it is over it", () => {
  const live = { status: "live" as const, tracing_seconds: null };
  const told = costText({ ...live, overhead: 0.0081, overhead_budget: 0.02 });
  expect([typed(told.cost), typed(told.budget), told.isOver]).toEqual(["0.8_%", " of 2_%", false]);
  expect(costText({ ...live, overhead: 0.03, overhead_budget: 0.02 }).isOver).toBe(true);
  expect(costText({ ...live, overhead: 0.03, overhead_budget: null })).toMatchObject({ budget: "", isOver: false });
});

it("a cost that was not measured is n/a with the reason", () => {
  const unknown = { overhead: null, overhead_budget: null, tracing_seconds: null };
  expect(costText({ ...unknown, status: "live" })).toMatchObject({
    cost: "n/a",
    why: "n/a: what watching costs was not measured yet.",
  });
  expect(costText({ ...unknown, status: "finished" }).why).toBe("n/a: this run did not measure what watching costs.");
  expect(costText(null).cost).toBe("n/a");
});

it("what compiling took stands beside the cost, not in it", () => {
  const compiled = { status: "live" as const, overhead: 0.0081, overhead_budget: null, tracing_seconds: 1.42 };
  expect(typed(costText(compiled).why)).toBe(
    "Share of the plain training time that watching has cost so far. " +
      "Tracing and compiling the measured step took 1.42_s, once, which is not in it.",
  );
});
