import { expect, it } from "vitest";
import { evenTicks, exponentTicks, stepTicks } from "./axis";

it("stepTicks are round, whole and within the range", () => {
  expect(stepTicks(0, 2000, 8)).toEqual([0, 500, 1000, 1500, 2000]);
  expect(stepTicks(130, 260, 5)).toEqual([150, 200, 250]);
  expect(stepTicks(0, 3, 10)).toEqual([0, 1, 2, 3]);
  expect(stepTicks(0, 1_000_000, 4)).toEqual([0, 500_000, 1_000_000]);
});

it("exponentTicks count down from the highest, skipping where there are many", () => {
  expect(exponentTicks(-3, 0, 7)).toEqual([-3, -2, -1, 0]);
  expect(exponentTicks(-12, 0, 7)).toEqual([-12, -10, -8, -6, -4, -2, 0]);
  expect(exponentTicks(-9, 0, 7)).toEqual([-8, -6, -4, -2, 0]);
});

it("evenTicks include both ends", () => {
  expect(evenTicks(0, 1, 5)).toEqual([0, 0.25, 0.5, 0.75, 1]);
});
