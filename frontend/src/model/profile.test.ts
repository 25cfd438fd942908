import { describe, expect, it } from "vitest";
import type { Layer, LayerTable, Profile, Profiles } from "../api/types";
import { figure, forwardFlops, largestHolders, memoryRows, sortTimes, sumOf, timeRows } from "./profile";

function layer(name: string, flops: number | null = null): Layer {
  const shapes = { input_shapes: [], output_shapes: [], input_dtypes: [], output_dtypes: [] };
  return {
    ...shapes,
    name,
    own_name: name.toLowerCase(),
    type: "Dense",
    dtype: "",
    trainable: true,
    flops,
    parameters: 0,
  };
}

const TABLE: LayerTable = { layers: [layer("A", 5), layer("B", 7), layer("C")], parameters: [] };

function profile(columns: readonly string[], ...values: number[]): Profile {
  return { step: 3, firstStep: 0, columns, values: Float64Array.from(values) };
}

const NAN = Number.NaN;
const PROFILES: Profiles = {
  timing: profile(["calls", "forward", "backward"], ...[2, 0.002, 0.004], ...[1, 0.001, NAN], ...[NAN, NAN, NAN]),
  flops: profile(["forward", "backward"], ...[4e6, 8e6], ...[NAN, NAN], ...[0, 0]),
  memory: profile(
    ["activations", "parameters", "gradients", "optimizer"],
    ...[100, 10, 10, 20],
    ...[300, NAN, NAN, NAN],
    ...[NAN, NAN, NAN, NAN],
  ),
};

describe("a figure", () => {
  it("is null, never 0, where it was not measured", () => {
    expect(figure(PROFILES.timing, 0, "calls")).toBe(2);
    expect(figure(PROFILES.timing, 1, "backward")).toBeNull();
    expect(figure(PROFILES.timing, 9, "calls")).toBeNull();
    expect(figure(PROFILES.timing, 0, "naps")).toBeNull();
    expect(figure(undefined, 0, "calls")).toBeNull();
    expect(sumOf([null, 2, null, 3])).toBe(5);
    expect(sumOf([null, null])).toBeNull();
  });

  it("of operations is that of the step, or else that of the table", () => {
    expect(TABLE.layers.map((one, row) => forwardFlops(PROFILES, one, row))).toEqual([4e6, 7, 0]);
  });
});

describe("timeRows", () => {
  it("gives shares of the step, and operations per second of the forward pass", () => {
    const [a, b, c] = timeRows(TABLE, PROFILES, 0.012);
    expect(a).toMatchObject({ calls: 2, forward: 0.002, backward: 0.004, flops: 4e6 });
    expect(a?.share).toBeCloseTo(0.5);
    expect(a?.rate).toBeCloseTo(2e9);
    expect(b?.share).toBeCloseTo(1 / 12);
    expect(b).toMatchObject({ backward: null, flops: null, rate: null });
    expect(c).toMatchObject({ calls: null, forward: null, share: null, flops: 0, rate: null });
  });

  it("gives shares of all layers where the step was not timed", () => {
    expect(timeRows(TABLE, PROFILES, null).map(({ share }) => share?.toFixed(4))).toEqual([
      "0.8571",
      "0.1429",
      undefined,
    ]);
    expect(timeRows(TABLE, {}, null).map(({ share }) => share)).toEqual([null, null, null]);
  });

  it("are sorted with the slowest first", () => {
    const names = (key: "share" | "name" | "order", descending: boolean) =>
      sortTimes(timeRows(TABLE, PROFILES, 0.012), key, descending).map((row) => row.layer.name);
    expect(names("share", true)).toEqual(["A", "B", "C"]);
    expect(names("share", false)).toEqual(["B", "A", "C"]);
    expect(names("name", true)).toEqual(["C", "B", "A"]);
    expect(names("order", false)).toEqual(["A", "B", "C"]);
  });
});

describe("memoryRows", () => {
  const rows = memoryRows(TABLE, PROFILES);

  it("adds up what was measured, and gives shares", () => {
    expect(rows.map(({ total }) => total)).toEqual([140, 300, null]);
    expect(rows[0]?.share).toBeCloseTo(140 / 440);
    expect(rows[2]?.share).toBeNull();
    expect(rows.map(({ flopShare }) => flopShare)).toEqual([1, null, 0]);
  });

  it("the largest holders come first, and those that hold nothing not at all", () => {
    expect(largestHolders(rows, 5).map(({ index }) => index)).toEqual([1, 0]);
    expect(largestHolders(rows, 1).map(({ index }) => index)).toEqual([1]);
  });
});
