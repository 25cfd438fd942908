/** The layer table with what was measured at one step: one record per layer, sorted and filtered. */

import type { Frame, Layer, LayerTable, Profiles } from "../api/types";
import { figure, forwardFlops } from "./profile";
import { type Sorting, sorted } from "./sorting";

/** How a tensor's values divide; `mixed` are those whose sign the statistics do not tell. Shares of all values. */
export interface ValueShares {
  readonly negative: number;
  readonly zero: number;
  readonly positive: number;
  readonly mixed: number;
  readonly nonfinite: number;
}

/** A row of the table; null is what was not measured. */
export interface LayerRow {
  readonly index: number;
  readonly layer: Layer;
  readonly output: string;
  readonly mean: number | null;
  readonly std: number | null;
  readonly gradientRms: number | null;
  readonly updateRatio: number | null;
  /** Seconds and operations of the forward pass. */
  readonly forwardTime: number | null;
  readonly flops: number | null;
  readonly shares: ValueShares | null;
  /** NaN and Inf in anything that was measured of the layer. */
  readonly nonfinite: number;
}

export type SortKey =
  | "order"
  | "name"
  | "type"
  | "parameters"
  | "flops"
  | "forwardTime"
  | "mean"
  | "std"
  | "gradientRms"
  | "updateRatio"
  | "zero";

export type Sort = Sorting<SortKey>;

export const SORT_KEYS: readonly SortKey[] = [
  "order",
  "name",
  "type",
  "parameters",
  "flops",
  "forwardTime",
  "mean",
  "std",
  "gradientRms",
  "updateRatio",
  "zero",
];

/** Returns the keys of the columns that there are where a run has `profiles`. */
export function sortKeys(profiles: Readonly<Record<string, number>>): readonly SortKey[] {
  const needs: Readonly<Partial<Record<SortKey, string>>> = { flops: "flops", forwardTime: "timing" };
  return SORT_KEYS.filter((key) => needs[key] === undefined || needs[key] in profiles);
}

/** Returns whether a layer has no row where the parameters of each layer are merged: it has none. */
export function lacksParameters(table: LayerTable | null, layer: number): boolean {
  return table !== null && !table.parameters.some((parameter) => parameter.layer === layer);
}

/** Returns one statistic of one row of a frame's matrix, or null where it was not measured or the tensor was empty. */
export function measured(frame: Frame, matrix: string, row: number, statistic: string): number | null {
  const value = frame.matrices[matrix]?.[row * frame.columns.length + frame.columns.indexOf(statistic)];
  const count = frame.matrices[matrix]?.[row * frame.columns.length + frame.columns.indexOf("count")];
  if (value === undefined || count === undefined || Number.isNaN(count)) return null;
  return count === 0 && Number.isNaN(value) ? null : value;
}

/** Returns sqrt(mean(x^2)) over the finite values of a row; NaN where none is, null where there are no values. */
export function rms(frame: Frame, matrix: string, row: number): number | null {
  const l2 = measured(frame, matrix, row, "l2");
  const count = measured(frame, matrix, row, "count");
  const bad = nonfiniteCount(frame, matrix, row);
  if (l2 === null || !count) return null;
  return count > bad ? l2 / Math.sqrt(count - bad) : Number.NaN;
}

/** Returns how many NaN and Inf a row held; 0 where it was not measured. */
export function nonfiniteCount(frame: Frame, matrix: string, row: number): number {
  return ["nan", "posinf", "neginf"].reduce((sum, name) => sum + (measured(frame, matrix, row, name) ?? 0), 0);
}

/**
 * Returns |update| / |weight| by l2 norms; NaN where one of them has no finite value, null where one was not measured
 * or the weights are zero.
 */
function updateRatio(frame: Frame, row: number): number | null {
  const isLost = (matrix: string) => Number.isNaN(rms(frame, matrix, row));
  if (isLost("updates_by_layer") || isLost("weights_by_layer")) return Number.NaN;
  const update = measured(frame, "updates_by_layer", row, "l2");
  const weight = measured(frame, "weights_by_layer", row, "l2");
  return update === null || !weight ? null : update / weight;
}

/** Returns how the values of a row divide. Signs are known where the smallest or largest value tells them. */
export function valueShares(frame: Frame, matrix: string, row: number): ValueShares | null {
  const count = measured(frame, matrix, row, "count");
  if (!count) return null;
  const zero = (measured(frame, matrix, row, "zeros") ?? 0) / count;
  const nonfinite = nonfiniteCount(frame, matrix, row) / count;
  const rest = Math.max(0, 1 - zero - nonfinite);
  const least = measured(frame, matrix, row, "min") ?? Number.NaN;
  const most = measured(frame, matrix, row, "max") ?? Number.NaN;
  const shares = { negative: 0, zero, positive: 0, mixed: 0, nonfinite };
  if (least >= 0) return { ...shares, positive: rest };
  if (most <= 0) return { ...shares, negative: rest };
  return { ...shares, mixed: rest };
}

/** What a layer's numbers can come from: activations and their gradients, and its parameters merged. */
export const OF_LAYERS = [
  "activations",
  "activation_gradients",
  "gradients_by_layer",
  "weights_by_layer",
  "updates_by_layer",
] as const;

/** Returns how many layers hold NaN or Inf in one of `matrices`. */
export function layersWithNonfinite(frame: Frame, layers: number, matrices: readonly string[]): number {
  let found = 0;
  for (let row = 0; row < layers; row++) {
    if (matrices.some((matrix) => nonfiniteCount(frame, matrix, row) > 0)) found++;
  }
  return found;
}

/** Returns the rows of the table in execution order. */
export function layerRows(
  table: LayerTable,
  frame: Frame | null,
  profiles: Profiles,
  shapeText: (layer: Layer) => string,
): LayerRow[] {
  return table.layers.map((layer, index) => ({
    index,
    layer,
    output: shapeText(layer),
    mean: frame && measured(frame, "activations", index, "mean"),
    std: frame && measured(frame, "activations", index, "std"),
    gradientRms: frame && rms(frame, "gradients_by_layer", index),
    updateRatio: frame && updateRatio(frame, index),
    forwardTime: figure(profiles.timing, index, "forward"),
    flops: forwardFlops(profiles, layer, index),
    shares: frame && valueShares(frame, "activations", index),
    nonfinite: frame ? OF_LAYERS.reduce((sum, matrix) => sum + nonfiniteCount(frame, matrix, index), 0) : 0,
  }));
}

/** Returns the rows whose name, own name or type holds every word of `filter`, without regard to case. */
export function filterRows<Row extends { readonly layer: Layer }>(rows: readonly Row[], filter: string): Row[] {
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  return rows.filter(({ layer }) => {
    const text = `${layer.name} ${layer.own_name} ${layer.type}`.toLowerCase();
    return words.every((word) => text.includes(word));
  });
}

function sortValue(row: LayerRow, key: SortKey): number | string | null {
  switch (key) {
    case "order":
      return row.index;
    case "name":
      return row.layer.own_name || row.layer.name;
    case "type":
      return row.layer.type;
    case "parameters":
      return row.layer.parameters;
    case "zero":
      return row.shares?.zero ?? null;
    default:
      return row[key];
  }
}

/** Returns the rows sorted; what was not measured comes last either way, equals stay in execution order. */
export function sortRows(rows: readonly LayerRow[], sort: Sort): LayerRow[] {
  return sorted(rows, sort.descending, (row) => sortValue(row, sort.key));
}

/** Returns the number of the layer that a link or an earlier choice names, or null where there is none. */
export function layerNamed(table: LayerTable, name: string): number | null {
  const exact = table.layers.findIndex((layer) => layer.name === name);
  const index = exact >= 0 ? exact : table.layers.findIndex((layer) => layer.own_name === name);
  return index >= 0 ? index : null;
}

/** Returns what a layer is called where space is short. */
export function layerLabel(table: LayerTable | null, index: number): string {
  const layer = table?.layers[index];
  return layer ? layer.name : `layer ${index}`;
}
