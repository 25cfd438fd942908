/** From a matrix of the server to a heat map: which bound is shown, its scale, its cells. */

import { type Columns, type Matrix, NONFINITE, NOT_MEASURED, type StepRange } from "../api/types";
import { evenTicks, exponentTicks } from "./axis";
import { decades, levels, type Scale, span } from "./colour";
import {
  formatBytes,
  formatDuration,
  formatDurations,
  formatRound,
  formatShare,
  formatSizes,
  formatSteps,
  formatValue,
  NOT_AVAILABLE,
} from "./format";
import { columnAt, columnEdges } from "./viewport";

/** A statistic: what it is called, and how its values lie on a scale. */
export interface StatisticStyle {
  readonly label: string;
  /** An amount is linear, and its axis begins at zero. */
  readonly scale: "log" | "linear" | "share" | "amount";
  /** What values are in; none where they have no unit. */
  readonly unit?: "seconds" | "bytes";
}

const STYLES: Readonly<Record<string, StatisticStyle>> = {
  rms: { label: "rms", scale: "log" },
  absmax: { label: "largest magnitude", scale: "log" },
  std: { label: "standard deviation", scale: "log" },
  mean: { label: "mean", scale: "linear" },
  min: { label: "minimum", scale: "linear" },
  max: { label: "maximum", scale: "linear" },
  zero_share: { label: "share of zeros", scale: "share" },
  "timing.forward": { label: "forward", scale: "amount", unit: "seconds" },
  "timing.backward": { label: "backward", scale: "amount", unit: "seconds" },
  "trace.step": { label: "step", scale: "amount", unit: "seconds" },
  "trace.forward": { label: "forward", scale: "amount", unit: "seconds" },
  "trace.backward": { label: "backward", scale: "amount", unit: "seconds" },
  "trace.optimizer": { label: "optimizer", scale: "amount", unit: "seconds" },
  "trace.allocated": { label: "allocated", scale: "amount", unit: "bytes" },
  "trace.reserved": { label: "reserved", scale: "amount", unit: "bytes" },
  "trace.process": { label: "process memory", scale: "linear", unit: "bytes" },
  "memory.activations": { label: "activations", scale: "amount", unit: "bytes" },
  "memory.parameters": { label: "parameters", scale: "amount", unit: "bytes" },
  "memory.gradients": { label: "gradients", scale: "amount", unit: "bytes" },
  "memory.optimizer": { label: "optimizer", scale: "amount", unit: "bytes" },
};

export function styleOf(statistic: string): StatisticStyle {
  return STYLES[statistic] ?? { label: statistic, scale: "linear" };
}

export function formatStatistic(statistic: string, value: number | null): string {
  const { scale, unit } = styleOf(statistic);
  if (unit !== undefined) return unit === "seconds" ? formatDuration(value) : formatBytes(value);
  return scale === "share" ? formatShare(value) : formatValue(value);
}

/** Returns a value at an axis or a legend. */
export function formatAxis(statistic: string, value: number): string {
  return styleOf(statistic).scale === "share" ? formatShare(value) : formatRound(value);
}

/** Returns the values of one axis. */
export function formatAxes(statistic: string, values: readonly number[]): string[] {
  const { unit } = styleOf(statistic);
  if (unit !== undefined) return unit === "seconds" ? formatDurations(values) : formatSizes(values);
  return values.map((value) => formatAxis(statistic, value));
}

/** A heat map without its place on the screen. Cells are (rows, columns). */
export interface Picture {
  readonly statistic: string;
  readonly matrix: Matrix;
  /** What the colours show: of several frames in a column the largest value, of minima the smallest. */
  readonly shown: Float32Array;
  readonly scale: Scale;
  readonly levels: Uint8Array;
  readonly edges: Float64Array;
  /** Row numbers of the picture that hold NaN or Inf somewhere. */
  readonly flagged: ReadonlySet<number>;
  /** Whether columns hold more than one frame. */
  readonly decimated: boolean;
}

export function pictureOf(matrix: Matrix, statistic: string): Picture {
  const shown = statistic === "min" ? matrix.minimum : matrix.maximum;
  const columns = matrix.firstStep.length;
  const flagged = new Set<number>();
  matrix.state.forEach((state, cell) => {
    if (state === NONFINITE) flagged.add(Math.floor(cell / columns));
  });
  const style = styleOf(statistic).scale;
  const scale = style === "log" ? decades(shown) : style === "share" ? SHARES : span(shown);
  return {
    statistic,
    matrix,
    shown,
    scale,
    levels: levels(shown, matrix.state, scale),
    edges: columnEdges(matrix),
    flagged,
    decimated: matrix.firstStep.some((first, column) => first !== matrix.lastStep[column]),
  };
}

const SHARES: Scale = { log: false, low: 0, high: 1 };

/** Returns the words for the least and the greatest value of a statistic over some frames. */
export function boundsText(statistic: string, low: number, high: number): string {
  // Of what is no tensor's statistic, NaN says that it was not measured.
  if (Number.isNaN(high)) return styleOf(statistic).unit ? NOT_AVAILABLE : "nothing finite";
  const text = (value: number) => formatStatistic(statistic, value);
  return low === high ? text(high) : `${text(low)} to ${text(high)}`;
}

/** Returns the words for a cell: its value, both ends where it holds several frames, or why there is none. */
export function cellText(picture: Picture, row: number, column: number): string {
  const cell = row * picture.matrix.firstStep.length + column;
  const state = picture.matrix.state[cell];
  if (state === undefined || state === NOT_MEASURED) return "not measured";
  const low = picture.matrix.minimum[cell] as number;
  const high = picture.matrix.maximum[cell] as number;
  const finite = boundsText(picture.statistic, low, high);
  return state === NONFINITE ? `holds NaN or Inf; over the rest: ${finite}` : finite;
}

export function columnText(columns: Columns, column: number): string {
  return formatSteps(columns.firstStep[column] ?? 0, columns.lastStep[column] ?? 0);
}

/** Ticks of a colour scale: where they stand (0 to 1) and what they say. */
export function legendTicks(scale: Scale, format: (value: number) => string): Array<{ place: number; text: string }> {
  const values = scale.log ? exponentTicks(scale.low, scale.high, 7) : evenTicks(scale.low, scale.high, 5);
  return values.map((value) => ({
    place: (value - scale.low) / (scale.high - scale.low),
    text: scale.log ? `1e${value}` : format(value),
  }));
}

/** Returns the steps from the left to the right edge of a picture. */
export function wholeRange(edges: Float64Array): { from: number; to: number } {
  const from = edges[0] ?? 0;
  return { from, to: Math.max(from + 1, edges[edges.length - 1] ?? 1) };
}

/** Returns where the cursor of `step` stands: in the middle of its column, or null outside the picture. */
export function cursorPlace(edges: Float64Array, step: number | null): number | null {
  const column = step === null ? -1 : columnAt(edges, step);
  return column < 0 ? null : ((edges[column] as number) + (edges[column + 1] as number)) / 2;
}

/** Returns a text that is equal for equal ranges. */
export function rangeKey(range: StepRange | null): string {
  return range ? `${range.first}-${range.last}` : "all";
}
