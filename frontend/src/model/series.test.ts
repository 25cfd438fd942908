import { describe, expect, it } from "vitest";
import type { Series } from "../api/types";
import { axisRange, hasValues, linesOf, selectLines } from "./series";

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
    expect(axisRange(3e-5, 0.02, true)[0]).toBeCloseTo(1e-5);
    expect(axisRange(3e-5, 0.02, true)[1]).toBeCloseTo(0.1);
    expect(axisRange(1, 1, true)).toEqual([1, 10]);
    expect(axisRange(null, null, true)).toEqual([0.1, 1]);
  });

  it("goes a little beyond the values, but not below zero where none is", () => {
    expect(axisRange(0, 1, false)).toEqual([0, 1.06]);
    expect(axisRange(-1, 1, false)).toEqual([-1.12, 1.12]);
    expect(axisRange(10, 20, false)).toEqual([9.4, 20.6]);
    expect(axisRange(0, 0, false)).toEqual([-1, 1]);
    expect(axisRange(-4, -4, false)).toEqual([-6, -2]);
  });
});
