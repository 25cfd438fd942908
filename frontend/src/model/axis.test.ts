import { expect, it } from "vitest";
import { byteTicks, evenTicks, exponentTicks, roundTicks, stepTicks } from "./axis";

it("stepTicks are round, whole and within the range", () => {
  expect(stepTicks(0, 2000, 8)).toEqual([0, 500, 1000, 1500, 2000]);
  expect(stepTicks(130, 260, 5)).toEqual([150, 200, 250]);
  expect(stepTicks(0, 3, 10)).toEqual([0, 1, 2, 3]);
  expect(stepTicks(0, 1_000_000, 4)).toEqual([0, 500_000, 1_000_000]);
});

it("roundTicks may be as small as they must", () => {
  expect(roundTicks(0, 0.34, 4).map((tick) => tick.toPrecision(6))).toEqual([
    "0.00000",
    "0.100000",
    "0.200000",
    "0.300000",
  ]);
  expect(roundTicks(1.2e-5, 2.1e-5, 5).map((tick) => Math.round(tick * 1e7))).toEqual([120, 140, 160, 180, 200]);
  expect(roundTicks(1, 1, 5)).toEqual([]);
});

it("byteTicks are multiples of a power of two", () => {
  expect(byteTicks(800 * 2 ** 20, 884 * 2 ** 20, 4).map((tick) => tick / 2 ** 20)).toEqual([800, 832, 864]);
  expect(byteTicks(0, 3, 4)).toEqual([0, 1, 2, 3]);
  expect(byteTicks(5, 5, 4)).toEqual([]);
});

it("exponentTicks count down from the highest, skipping where there are many", () => {
  expect(exponentTicks(-3, 0, 7)).toEqual([-3, -2, -1, 0]);
  expect(exponentTicks(-12, 0, 7)).toEqual([-12, -10, -8, -6, -4, -2, 0]);
  expect(exponentTicks(-9, 0, 7)).toEqual([-8, -6, -4, -2, 0]);
});

it("evenTicks include both ends", () => {
  expect(evenTicks(0, 1, 5)).toEqual([0, 0.25, 0.5, 0.75, 1]);
});
