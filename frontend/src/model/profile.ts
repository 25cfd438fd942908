/** Profiles of a step: figures of layers in seconds, bytes and operations, apart from the statistics of tensors. */

import type { Layer, LayerTable, Profile, ProfileKind, Profiles } from "../api/types";
import type { View } from "./hash";
import { sorted } from "./sorting";

/** Which profiles a view shows. */
export const PROFILES_OF_VIEW: Readonly<Record<View, readonly ProfileKind[]>> = {
  overview: ["timing", "flops"],
  trace: ["trace", "timing", "flops"],
  gradients: [],
  activations: [],
  memory: ["trace", "memory", "flops"],
};

/** Returns one figure of a layer, or null where it was not measured. */
export function figure(profile: Profile | undefined, row: number, column: string): number | null {
  const at = profile?.columns.indexOf(column) ?? -1;
  const value = at < 0 ? undefined : profile?.values[row * profile.columns.length + at];
  return value === undefined || Number.isNaN(value) ? null : value;
}

/** Returns the sum of what was measured, or null where nothing was. */
export function sumOf(values: ReadonlyArray<number | null>): number | null {
  const measured = values.filter((value) => value !== null);
  return measured.length === 0 ? null : measured.reduce((sum, value) => sum + value, 0);
}

function shareOf(part: number | null, whole: number | null): number | null {
  return part === null || !whole ? null : part / whole;
}

/** The operations of one forward pass of a layer: those counted in the step, or else those that its table tells. */
export function forwardFlops(profiles: Profiles, layer: Layer, row: number): number | null {
  return figure(profiles.flops, row, "forward") ?? layer.flops;
}

/** What a layer took of a step; null is what was not measured. */
export interface TimeRow {
  readonly index: number;
  readonly layer: Layer;
  readonly calls: number | null;
  readonly forward: number | null;
  readonly backward: number | null;
  /** Of the step, or where its duration was not recorded, of the time of all layers. */
  readonly share: number | null;
  readonly flops: number | null;
  /** Operations per second of the forward pass. */
  readonly rate: number | null;
}

export const TIME_KEYS = ["share", "name", "calls", "forward", "backward", "flops", "rate", "order"] as const;
export type TimeKey = (typeof TIME_KEYS)[number];

/** Returns what each layer took; `duration` is that of the step, in seconds. */
export function timeRows(table: LayerTable, profiles: Profiles, duration: number | null): TimeRow[] {
  const times = table.layers.map((layer, index) => {
    const forward = figure(profiles.timing, index, "forward");
    const backward = figure(profiles.timing, index, "backward");
    return { index, layer, forward, backward, calls: figure(profiles.timing, index, "calls") };
  });
  const whole = duration ?? sumOf(times.map(({ forward, backward }) => sumOf([forward, backward])));
  return times.map((row) => {
    const flops = figure(profiles.flops, row.index, "forward");
    return {
      ...row,
      share: shareOf(sumOf([row.forward, row.backward]), whole),
      flops,
      rate: shareOf(flops, row.forward),
    };
  });
}

export function sortTimes(rows: readonly TimeRow[], key: TimeKey, descending: boolean): TimeRow[] {
  return sorted(rows, descending, (row) =>
    key === "name" ? nameOf(row.layer) : key === "order" ? row.index : row[key],
  );
}

/** What a layer holds in a step, in bytes, and computes; null is what was not measured. */
export interface MemoryRow {
  readonly index: number;
  readonly layer: Layer;
  readonly activations: number | null;
  readonly parameters: number | null;
  readonly gradients: number | null;
  readonly optimizer: number | null;
  readonly total: number | null;
  /** Of what all layers hold. */
  readonly share: number | null;
  readonly forwardFlops: number | null;
  readonly backwardFlops: number | null;
  /** Of the operations of all layers, forward and backward. */
  readonly flopShare: number | null;
}

export const HELD = ["activations", "parameters", "gradients", "optimizer"] as const;
export type Held = (typeof HELD)[number];

export const MEMORY_KEYS = ["total", "name", ...HELD, "forwardFlops", "backwardFlops", "flopShare", "order"] as const;
export type MemoryKey = (typeof MEMORY_KEYS)[number];

export function memoryRows(table: LayerTable, profiles: Profiles): MemoryRow[] {
  const rows = table.layers.map((layer, index) => {
    const held = Object.fromEntries(HELD.map((name) => [name, figure(profiles.memory, index, name)]));
    const forwardFlops = figure(profiles.flops, index, "forward");
    const backwardFlops = figure(profiles.flops, index, "backward");
    return {
      ...(held as Record<Held, number | null>),
      index,
      layer,
      forwardFlops,
      backwardFlops,
      total: sumOf(Object.values(held)),
      flops: sumOf([forwardFlops, backwardFlops]),
    };
  });
  const [bytes, operations] = [sumOf(rows.map(({ total }) => total)), sumOf(rows.map(({ flops }) => flops))];
  return rows.map(({ flops, ...row }) => ({
    ...row,
    share: shareOf(row.total, bytes),
    flopShare: shareOf(flops, operations),
  }));
}

export function sortMemory(rows: readonly MemoryRow[], key: MemoryKey, descending: boolean): MemoryRow[] {
  return sorted(rows, descending, (row) =>
    key === "name" ? nameOf(row.layer) : key === "order" ? row.index : row[key],
  );
}

/** Returns the `count` layers that hold most, the largest first. */
export function largestHolders(rows: readonly MemoryRow[], count: number): MemoryRow[] {
  return sortMemory(rows, "total", true)
    .filter((row) => row.total !== null && row.total > 0)
    .slice(0, count);
}

function nameOf(layer: Layer): string {
  return layer.own_name || layer.name;
}
