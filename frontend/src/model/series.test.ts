import { describe, expect, it } from "vitest";
import type { Series } from "../api/types";
import { axisRange, columnValueText, hasValues, linesOf, selectLines } from "./series";

const SERIES: Series = {
  statistics: ["rms", "mean"],
  firstStep: Float64Array.of(0, 10, 20),
  lastStep: Float64Array.of(0, 10, 20),
  minimum: Float32Array.of(1, 0, Number.NaN, -2, 0, 3),
  maximum: Float32Array.of(2, 0, Number.NaN, -1, 0, 4),
  state: Uint8Array.of(1, 2, 0),
};

describe("linesOf", () => {
  it("has null where nothing was measured", () => {
    const { lines, steps, nonfinite } = linesOf(SERIES, false);
    expect(steps).toEqual([0, 10, 20]);
    expect(nonfinite).toEqual([10]);
    expect(lines[0]).toEqual({ statistic: "rms", low: [1, 0, null], high: [2, 0, null] });
    expect(lines[1]).toEqual({ statistic: "mean", low: [-2, 0, 3], high: [-1, 0, 4] });
  });

  it("has null on a log axis for what is not above zero", () => {
    const lines = linesOf(SERIES, true);
    expect(lines.lines[1]?.low).toEqual([null, null, 3]);
    expect(hasValues(lines)).toBe(true);
    expect(hasValues(selectLines(lines, []))).toBe(false);
  });
});

describe("axisRange", () => {
  it("is of whole decades on a log axis", () => {
    expect(axisRange(3e-5, 0.02, "log")[0]).toBeCloseTo(1e-5);
    expect(axisRange(3e-5, 0.02, "log")[1]).toBeCloseTo(0.1);
    expect(axisRange(1, 1, "log")).toEqual([1, 10]);
    expect(axisRange(null, null, "log")).toEqual([0.1, 1]);
  });

  it("goes a little beyond the values, but not below zero where none is", () => {
    expect(axisRange(0, 1, "linear")).toEqual([0, 1.06]);
    expect(axisRange(-1, 1, "linear")).toEqual([-1.12, 1.12]);
    expect(axisRange(10, 20, "linear")).toEqual([9.4, 20.6]);
    expect(axisRange(0, 0, "linear")).toEqual([-1, 1]);
    expect(axisRange(-4, -4, "linear")).toEqual([-6, -2]);
  });

  it("begins at zero for an amount", () => {
    expect(axisRange(50, 100, "amount")).toEqual([0, 106]);
    expect(axisRange(0, 0, "amount")).toEqual([0, 1]);
    expect(axisRange(null, null, "amount")).toEqual([0, 1]);
  });

  it("holds all shares, and nothing that is none", () => {
    expect(axisRange(0, 0, "share")).toEqual([0, 1]);
    expect(axisRange(0.2, 0.21, "share")).toEqual([0, 1]);
    expect(axisRange(null, null, "share")).toEqual([0, 1]);
  });
});

it("a column's words give both ends of what it holds, zeros too, and say where there is nothing", () => {
  expect([0, 1, 2].map((column) => columnValueText(SERIES, "rms", column))).toEqual(["1.00 to 2.00", "0", "n/a"]);
  expect(columnValueText(SERIES, "mean", 0)).toBe("\u22122.00 to \u22121.00");
  const broken = { ...SERIES, maximum: new Float32Array(6).fill(Number.NaN) };
  expect(columnValueText(broken, "rms", 1)).toBe("nothing finite");
});

describe("what is no tensor's statistic", () => {
  const times: Series = { ...SERIES, statistics: ["timing.forward", "memory.parameters"] };

  it("is told in its unit, and n/a where it was not measured", () => {
    expect(columnValueText(times, "timing.forward", 0)).toBe("1\u202fs to 2\u202fs");
    expect(columnValueText(times, "timing.forward", 2)).toBe("n/a");
    const partly = { ...times, state: Uint8Array.of(1, 1, 1) };
    expect(columnValueText(partly, "timing.forward", 2)).toBe("n/a");
    expect(columnValueText(partly, "memory.parameters", 2)).toBe("3\u202fB to 4\u202fB");
  });
});
