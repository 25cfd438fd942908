import { describe, expect, it } from "vitest";
import type { Frame, Layer, LayerTable } from "../api/types";
import {
  filterRows,
  lacksParameters,
  layerNamed,
  layerRows,
  layersWithNonfinite,
  measured,
  nonfiniteCount,
  rms,
  SORT_KEYS,
  sortKeys,
  sortRows,
  valueShares,
} from "./layers";

const COLUMNS = ["count", "nan", "posinf", "neginf", "zeros", "min", "max", "mean", "std", "l2"];
const UNMEASURED = new Array<number>(10).fill(Number.NaN);

function layer(name: string, own_name: string, type: string, parameters = 0): Layer {
  return {
    name,
    own_name,
    type,
    parameters,
    input_shapes: [],
    output_shapes: [],
    input_dtypes: [],
    output_dtypes: [],
    dtype: "float32",
    trainable: true,
    flops: null,
  };
}

const TABLE: LayerTable = {
  layers: [
    layer("Conv2D_1", "conv2d", "Conv2D", 320),
    layer("Flatten_1", "flatten", "Flatten"),
    layer("Output", "dense", "Dense", 650),
  ],
  parameters: [],
};

const FRAME: Frame = {
  step: 40,
  columns: COLUMNS,
  scalars: {},
  matrices: {
    activations: Float64Array.from([
      ...[100, 0, 0, 0, 40, 0, 3, 0.5, 0.7, 9],
      ...UNMEASURED,
      ...[100, 5, 3, 2, 10, -1, 2, 0.1, 0.2, 6],
    ]),
    gradients_by_layer: Float64Array.from([
      ...[320, 0, 0, 0, 0, -1, 1, 0, 1, 8],
      ...UNMEASURED,
      ...[16, 0, 0, 0, 0, -1, 1, 0, 1, 8],
    ]),
    weights_by_layer: Float64Array.from([
      ...[320, 0, 0, 0, 0, -1, 1, 0, 1, 8],
      ...UNMEASURED,
      ...[16, 0, 0, 0, 16, 0, 0, 0, 0, 0],
    ]),
    updates_by_layer: Float64Array.from([
      ...[320, 0, 0, 0, 0, -1, 1, 0, 1, 2],
      ...UNMEASURED,
      ...[16, 0, 0, 0, 0, -1, 1, 0, 1, 1],
    ]),
  },
};

const rows = layerRows(TABLE, FRAME, {}, () => "");

describe("what was measured", () => {
  it("is a number, or null where it was not", () => {
    expect(measured(FRAME, "activations", 0, "mean")).toBe(0.5);
    expect(measured(FRAME, "activations", 1, "mean")).toBeNull();
    expect(measured(FRAME, "activations", 9, "mean")).toBeNull();
    expect(measured(FRAME, "memory", 0, "mean")).toBeNull();
  });

  it("gives an rms over the finite values only", () => {
    expect(rms(FRAME, "gradients_by_layer", 2)).toBe(2);
    expect(rms(FRAME, "activations", 2)).toBeCloseTo(6 / Math.sqrt(90));
    expect(rms(FRAME, "activations", 1)).toBeNull();
  });

  it("is NaN where all values are lost, and null where there are no values", () => {
    const lost = [12, 12, 0, 0, 0, Number.NaN, Number.NaN, Number.NaN, Number.NaN, 0];
    const empty = [0, 0, 0, 0, 0, Number.NaN, Number.NaN, Number.NaN, Number.NaN, 0];
    const fine = [12, 0, 0, 0, 0, -1, 1, 0, 1, 8];
    const matrices = Object.fromEntries(
      ["activations", "gradients_by_layer", "updates_by_layer"].map((name) => [
        name,
        Float64Array.from([...lost, ...empty]),
      ]),
    );
    const frame = { ...FRAME, matrices: { ...matrices, weights_by_layer: Float64Array.from([...fine, ...fine]) } };
    const [ofLost, ofEmpty] = layerRows(TABLE, frame, {}, () => "");
    expect(ofLost).toMatchObject({ mean: Number.NaN, gradientRms: Number.NaN, updateRatio: Number.NaN });
    expect(ofEmpty).toMatchObject({ mean: null, std: null, gradientRms: null, shares: null });
  });

  it("counts NaN and Inf, and layers that hold them", () => {
    expect(nonfiniteCount(FRAME, "activations", 2)).toBe(10);
    expect(nonfiniteCount(FRAME, "activations", 1)).toBe(0);
    expect(layersWithNonfinite(FRAME, 3, ["activations", "gradients_by_layer"])).toBe(1);
    expect(layersWithNonfinite(FRAME, 3, ["gradients_by_layer"])).toBe(0);
  });

  it("divides into shares, with signs only where the extremes tell them", () => {
    expect(valueShares(FRAME, "activations", 0)).toEqual({
      negative: 0,
      zero: 0.4,
      positive: 0.6,
      mixed: 0,
      nonfinite: 0,
    });
    expect(valueShares(FRAME, "activations", 2)).toEqual({
      negative: 0,
      zero: 0.1,
      positive: 0,
      mixed: 0.8,
      nonfinite: 0.1,
    });
    expect(valueShares(FRAME, "activations", 1)).toBeNull();
  });
});

describe("lacksParameters", () => {
  it("is known once there is a table", () => {
    const kernel = { name: "kernel", layer: 0, shape: [3, 3, 1, 32], dtype: "float32", trainable: true };
    const table = { ...TABLE, parameters: [kernel] };
    expect([0, 1, 2].map((row) => lacksParameters(table, row))).toEqual([false, true, true]);
    expect(lacksParameters(null, 1)).toBe(false);
  });
});

describe("layerRows", () => {
  it("holds null, never 0, for what was not measured", () => {
    expect(rows[0]).toMatchObject({ mean: 0.5, std: 0.7, updateRatio: 0.25, nonfinite: 0 });
    expect(rows[1]).toMatchObject({ mean: null, std: null, gradientRms: null, updateRatio: null, shares: null });
    expect(rows[2]).toMatchObject({ updateRatio: null, nonfinite: 10 });
    expect(layerRows(TABLE, null, {}, () => "")[0]).toMatchObject({ mean: null, shares: null });
  });
});

describe("time and operations", () => {
  const timing = { step: 40, firstStep: 0, columns: ["calls", "forward"], values: Float64Array.of(1, 0.5, 1, 0.25) };

  it("are in the rows as far as they were measured", () => {
    const timed = layerRows(TABLE, FRAME, { timing }, () => "");
    expect(timed.map(({ forwardTime }) => forwardTime)).toEqual([0.5, 0.25, null]);
    expect(timed.map(({ flops }) => flops)).toEqual([null, null, null]);
  });

  it("can be sorted by where the run has them", () => {
    expect(SORT_KEYS.filter((key) => !sortKeys({ trace: 3 }).includes(key))).toEqual(["flops", "forwardTime"]);
    expect(sortKeys({ timing: 3, flops: 1 })).toEqual(SORT_KEYS);
  });
});

describe("order and filter", () => {
  const names = (list: typeof rows) => list.map((row) => row.layer.name);

  it("put what was not measured last, whichever way it is sorted", () => {
    expect(names(sortRows(rows, { key: "mean", descending: false }))).toEqual(["Output", "Conv2D_1", "Flatten_1"]);
    expect(names(sortRows(rows, { key: "mean", descending: true }))).toEqual(["Conv2D_1", "Output", "Flatten_1"]);
    expect(names(sortRows(rows, { key: "zero", descending: true }))).toEqual(["Conv2D_1", "Output", "Flatten_1"]);
  });

  it("sort by name as it is shown, and back to execution order", () => {
    expect(names(sortRows(rows, { key: "name", descending: false }))).toEqual(["Conv2D_1", "Output", "Flatten_1"]);
    expect(names(sortRows(rows, { key: "order", descending: true }))).toEqual(["Output", "Flatten_1", "Conv2D_1"]);
  });

  it("filter by every word in any of the names", () => {
    expect(names(filterRows(rows, "CONV 2d_1"))).toEqual(["Conv2D_1"]);
    expect(names(filterRows(rows, "dense"))).toEqual(["Output"]);
    expect(names(filterRows(rows, " "))).toHaveLength(3);
    expect(names(filterRows(rows, "lstm"))).toEqual([]);
  });

  it("find a layer by either name", () => {
    expect(layerNamed(TABLE, "Output")).toBe(2);
    expect(layerNamed(TABLE, "flatten")).toBe(1);
    expect(layerNamed(TABLE, "gone")).toBeNull();
  });
});
