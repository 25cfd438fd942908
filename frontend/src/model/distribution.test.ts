import { describe, expect, it } from "vitest";
import type { Histograms } from "../api/types";
import { EMPTY_LEVEL, LEVELS, NONFINITE_LEVEL } from "./colour";
import {
  binLabels,
  binMeaning,
  distributionGrid,
  distributionLevels,
  distributionOf,
  formatPart,
} from "./distribution";

const weight = (column: Record<number, number>) => Object.values(column).reduce((sum, count) => sum + count, 0);

/** Histograms with the given counts per bin, one record per column. */
function histograms(...columns: Record<number, number>[]): Histograms {
  const bins = [...new Set(columns.flatMap((column) => Object.keys(column).map(Number)))].sort((a, b) => a - b);
  const steps = Float64Array.from(columns.keys());
  return {
    firstStep: steps,
    lastStep: steps,
    bins: Int32Array.from(bins),
    counts: Float64Array.from(columns.flatMap((column) => bins.map((bin) => column[bin] ?? 0))),
    counted: Float64Array.from(columns.map(weight)),
    total: Float64Array.from(columns.map(weight)),
  };
}

const positive = (exponent: number) => 384 + exponent;
const negative = (exponent: number) => 128 - exponent;

describe("binMeaning", () => {
  it("is that of the HTTP API", () => {
    expect(binMeaning(0)).toBeNull();
    expect(binMeaning(1)).toEqual({ sign: -1, exponent: 127 });
    expect(binMeaning(255)).toEqual({ sign: -1, exponent: -127 });
    expect(binMeaning(256)?.sign).toBe(0);
    expect(binMeaning(257)).toEqual({ sign: 1, exponent: -127 });
    expect(binMeaning(511)).toEqual({ sign: 1, exponent: 127 });
    expect(binMeaning(512)).toBeNull();
    expect(binMeaning(513)).toBeNull();
  });
});

describe("distributionOf", () => {
  it("counts what fp16 would lose among the values that are not zero", () => {
    const counts = {
      [positive(-15)]: 10, // below 2^-14: subnormal in fp16
      [positive(-14)]: 60, // its smallest normal numbers
      [negative(-25)]: 5, // below 2^-24: nothing in fp16
      [negative(-24)]: 25,
      256: 300,
      513: 7,
    };
    const distribution = distributionOf(histograms(counts), 0);
    expect(distribution.belowNormal).toBeCloseTo(0.4);
    expect(distribution.belowLeast).toBeCloseTo(0.05);
    expect(distribution).toMatchObject({ zeros: 300, nonfinite: 7, weight: 407, counted: 407, total: 407 });
    expect(distribution.bars).toHaveLength(12);
    expect(distribution.bars[0]).toEqual({ exponent: -25, negative: 5, positive: 0 });
    expect(distribution.bars.at(-1)).toEqual({ exponent: -14, negative: 0, positive: 60 });
  });

  it("has no shares where everything is zero or not finite", () => {
    const distribution = distributionOf(histograms({ 256: 3, 0: 1 }), 0);
    expect(distribution).toMatchObject({ bars: [], belowNormal: null, belowLeast: null, zeros: 3, nonfinite: 1 });
  });

  it("tells parts as counts where they were counted, and as shares where they are estimates", () => {
    const counts = histograms({ [positive(0)]: 300, 256: 100 });
    expect(formatPart(100, distributionOf(counts, 0))).toBe("100");
    const estimated = { ...counts, counted: Float64Array.of(40) };
    expect(formatPart(100, distributionOf(estimated, 0))).toBe("25\u202f%");
  });

  it("takes the column that is asked for", () => {
    const both = histograms({ [positive(0)]: 1 }, { [positive(0)]: 2, 256: 4 });
    expect(distributionOf(both, 1)).toMatchObject({ bars: [{ exponent: 0, negative: 0, positive: 2 }], zeros: 4 });
  });
});

describe("distributionGrid", () => {
  it("is symmetric around zero", () => {
    const grid = distributionGrid(histograms({ [positive(1)]: 1, [positive(0)]: 1, [negative(-1)]: 2 }));
    expect(grid.rows.map(({ sign, exponent }) => [sign, exponent])).toEqual([
      [1, 1],
      [1, 0],
      [1, -1],
      [0, Number.NEGATIVE_INFINITY],
      [-1, -1],
      [-1, 0],
      [-1, 1],
    ]);
    expect([...grid.shares]).toEqual([0.25, 0.25, 0, 0, 0.5, 0, 0]);
  });

  it("names zero and every fourth power that is not right beside it", () => {
    const { rows } = distributionGrid(histograms({ [positive(0)]: 1, [positive(-8)]: 1, [negative(-3)]: 1 }));
    expect(
      binLabels(rows)
        .map((label, row) => [row, label])
        .filter(([, label]) => label !== ""),
    ).toEqual([
      [0, "2⁰"],
      [4, "2⁻⁴"],
      [9, "0"],
      [14, "\u22122⁻⁴"],
      [18, "\u22122⁰"],
    ]);
  });

  it("leaves out the side of a sign that never occurs", () => {
    const grid = distributionGrid(histograms({ [positive(0)]: 1, 256: 3 }));
    expect(grid.rows).toHaveLength(2);
    expect([...grid.shares]).toEqual([0.25, 0.75]);
    expect(distributionGrid(histograms({ 256: 1 })).rows).toHaveLength(1);
  });

  it("adds what is very small to its smallest row", () => {
    const grid = distributionGrid(histograms({ [positive(0)]: 1, [positive(-40)]: 1, [positive(-120)]: 2 }));
    expect(grid.rows).toHaveLength(42);
    expect(grid.shares[40]).toBe(0.75);
  });

  it("shows NaN and Inf in a row of their own", () => {
    const grid = distributionGrid(histograms({ [positive(0)]: 4 }, { [positive(0)]: 3, 513: 1 }));
    const cells = distributionLevels(grid);
    expect([...grid.nonfinite]).toEqual([0, 0.25]);
    expect([...cells]).toEqual([EMPTY_LEVEL, NONFINITE_LEVEL, LEVELS - 1, cells[3], EMPTY_LEVEL, EMPTY_LEVEL]);
    expect(cells[3]).toBeLessThan(LEVELS - 1);
  });
});
