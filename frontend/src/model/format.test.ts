import { describe, expect, it } from "vitest";
import {
  elide,
  formatBytes,
  formatCount,
  formatDuration,
  formatDurations,
  formatFixed,
  formatFlops,
  formatPlural,
  formatPowerOfTwo,
  formatRound,
  formatShape,
  formatShare,
  formatSizes,
  formatSteps,
  formatTensors,
  formatValue,
} from "./format";

/** Thin spaces and minus signs as one types them. */
function typed(text: string): string {
  return text.replaceAll("\u202f", "_").replaceAll("\u2212", "-");
}

describe("formatValue", () => {
  it.each([
    [0, "0"],
    [-0, "0"],
    [0.61, "0.610"],
    [21.2, "21.2"],
    [123.456, "123"],
    [999.6, "1_000"],
    [9999.4, "9_999"],
    [9999.6, "1.0e4"],
    [0.0995, "0.0995"],
    [0.0994, "9.9e-2"],
    [3.9e-8, "3.9e-8"],
    [-4.6e-8, "-4.6e-8"],
    [1.5e300, "1.5e300"],
    [5e-324, "4.9e-324"],
    [Number.NaN, "NaN"],
    [Number.POSITIVE_INFINITY, "+Inf"],
    [Number.NEGATIVE_INFINITY, "-Inf"],
    [null, "n/a"],
    [undefined, "n/a"],
  ])("%s is %s", (value, text) => {
    expect(typed(formatValue(value))).toBe(text);
  });
});

describe("formatRound", () => {
  it.each([
    [0, "0"],
    [0.3, "0.3"],
    [-1, "-1"],
    [1234, "1230"],
    [25000, "2.5e4"],
    [2e-5, "2e-5"],
    [-2e-5, "-2e-5"],
  ])("%s is %s", (value, text) => {
    expect(typed(formatRound(value))).toBe(text);
  });
});

describe("formatShare", () => {
  it("never says none or all of what is not", () => {
    expect(typed(formatShare(0))).toBe("0_%");
    expect(typed(formatShare(1e-6))).toBe("<_0.1_%");
    expect(typed(formatShare(0.99999))).toBe(">_99.9_%");
    expect(typed(formatShare(1))).toBe("100_%");
  });

  it("has one digit after the point where that tells something", () => {
    expect(typed(formatShare(0.0134))).toBe("1.3_%");
    expect(typed(formatShare(0.523))).toBe("52_%");
    expect(typed(formatShare(0.996))).toBe("99.6_%");
    expect(formatShare(null)).toBe("n/a");
    expect(formatShare(Number.NaN)).toBe("n/a");
  });
});

describe("other texts", () => {
  it("separates thousands", () => {
    expect(typed(formatCount(2359360))).toBe("2_359_360");
    expect(typed(formatCount(-1000))).toBe("-1_000");
    expect(formatCount(999)).toBe("999");
  });

  it("writes shapes without the batch axis", () => {
    expect(formatShape([null, 26, 26, 32])).toBe("26×26×32");
    expect(formatShape([32, null])).toBe("?");
    expect(formatShape([32])).toBe("scalar");
  });

  it("raises the digits of a power of two", () => {
    expect(formatPowerOfTwo(-14)).toBe("2⁻¹⁴");
    expect(formatPowerOfTwo(0)).toBe("2⁰");
  });

  it("names steps and counts", () => {
    expect(formatSteps(40, 40)).toBe("step 40");
    expect(formatSteps(40, 49)).toBe("steps 40 to 49");
    expect(formatPlural(1, "layer")).toBe("1 layer");
    expect(formatPlural(3, "layer")).toBe("3 layers");
  });

  it("shortens in the middle", () => {
    expect(elide("Dense_1", 21)).toBe("Dense_1");
    expect(elide("encoder.layers.0.linear1", 13)).toBe("enco….linear1");
    expect(elide("encoder.layers.0.linear1", 13)).toHaveLength(13);
  });
});

describe("formatFixed", () => {
  it.each([
    [0, "0"],
    [0.0004, "<0.001"],
    [0.0005, "0.001"],
    [0.0123, "0.012"],
    [0.61, "0.610"],
    [47.93, "47.9"],
    [1850.2, "1_850"],
    [null, "n/a"],
    [Number.NaN, "n/a"],
  ])("%s is %s", (value, text) => {
    expect(typed(formatFixed(value))).toBe(text);
  });
});

describe("units", () => {
  it.each([
    [formatDuration(0), "0_s"],
    [formatDuration(4.2e-7), "0.42_µs"],
    [formatDuration(0.000655), "655_µs"],
    [formatDuration(0.0009996), "1_ms"],
    [formatDuration(0.00241), "2.41_ms"],
    [formatDuration(83.25), "83.3_s"],
    [formatDuration(null), "n/a"],
    [formatDuration(Number.NaN), "n/a"],
    [formatBytes(0), "0_B"],
    [formatBytes(512), "512_B"],
    [formatBytes(1020), "1_020_B"],
    [formatBytes(1023.9), "1_KiB"],
    [formatBytes(12.34 * 2 ** 20), "12.3_MiB"],
    [formatBytes(-(2 ** 30)), "-1_GiB"],
    [formatFlops(0), "0_FLOP"],
    [formatFlops(28_900_000), "28.9_MFLOP"],
    [formatFlops(11.8e9), "11.8_GFLOP"],
  ])("%s is %s", (given, text) => {
    expect(typed(given)).toBe(text);
  });

  it("of one axis are the same, with as few digits as tell values apart", () => {
    expect(formatDurations([0, 0.05, 0.1]).map(typed)).toEqual(["0_ms", "50_ms", "100_ms"]);
    expect(formatDurations([0.0205, 0.021]).map(typed)).toEqual(["20.5_ms", "21_ms"]);
    expect(formatSizes([0, 2 ** 29, 2 ** 30]).map(typed)).toEqual(["0_GiB", "0.5_GiB", "1_GiB"]);
    expect(formatSizes([882 * 2 ** 20, 882.25 * 2 ** 20]).map(typed)).toEqual(["882_MiB", "882.3_MiB"]);
    expect(formatSizes([])).toEqual([]);
  });
});

describe("formatTensors", () => {
  it("tells all axes and types", () => {
    expect(formatTensors([[64, 784], [null, 2], []], ["float32", "int64"])).toBe("64×784 float32, ?×2 int64, scalar");
    expect(formatTensors([], [])).toBe("n/a");
  });
});
