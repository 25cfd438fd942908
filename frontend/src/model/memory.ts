/** The memory in use over one step, and its peak. */

import type { LayerTable } from "../api/types";
import { byteTicks } from "./axis";
import { formatBytes } from "./format";
import { type Span, spanName, type Trace } from "./trace";
import { lastAtOrBelow } from "./viewport";

/** What a counter counts: the device's allocator, or on a CPU the whole process. */
export type Counter = "allocated" | "reserved" | "process";

/** Counters over one step, read whenever a span ended. */
export interface MemoryCurve {
  readonly counters: readonly Counter[];
  /** By end; of those that end together the deepest first. */
  readonly spans: readonly Span[];
  readonly ends: Float64Array;
  readonly low: number;
  readonly high: number;
  /** The first span at whose end the first counter stood highest; where a phase ends with a layer, the layer. */
  readonly peak: Span;
}

/** Returns the counters of a trace, or null where none was read. */
export function memoryCurve(trace: Trace | null): MemoryCurve | null {
  if (trace === null) return null;
  const measured = (counter: Counter) => trace.spans.some((span) => !Number.isNaN(span[counter]));
  const onDevice = (["allocated", "reserved"] as const).filter(measured);
  const counters: Counter[] = onDevice.length > 0 ? onDevice : measured("process") ? ["process"] : [];
  const [first] = counters;
  if (first === undefined) return null;
  const spans = trace.spans
    .filter((span) => !Number.isNaN(span[first]))
    .sort((a, b) => a.end - b.end || b.lane - a.lane);
  const values = spans
    .flatMap((span) => counters.map((counter) => span[counter]))
    .filter((value) => !Number.isNaN(value));
  return {
    counters,
    spans,
    ends: Float64Array.from(spans, (span) => span.end),
    low: values.reduce((least, value) => Math.min(least, value)),
    high: values.reduce((most, value) => Math.max(most, value)),
    peak: spans.reduce((peak, span) => (span[first] > peak[first] ? span : peak)),
  };
}

/**
 * Returns the axis of a curve: from zero for an allocator, whose numbers are of this training alone; around what
 * occurs for a process, most of which is there before training begins.
 */
export function memoryAxis({ counters, low, high }: MemoryCurve): { low: number; high: number; ticks: number[] } {
  const margin = Math.max((high - low) * 0.08, high * 0.002, 1);
  const least = counters[0] === "process" ? Math.max(0, low - margin) : 0;
  const most = high + margin;
  return { low: least, high: most, ticks: byteTicks(least, most, 4) };
}

/** Returns the span whose reading holds at `time`: the last that ended until then, before the first the first. */
export function readingAt(curve: MemoryCurve, time: number): Span {
  return curve.spans[Math.max(0, lastAtOrBelow(curve.ends, time))] as Span;
}

export const COUNTER_TEXTS: Readonly<Record<Counter, string>> = {
  allocated: "allocated",
  reserved: "reserved",
  process: "process memory",
};

/** Returns the words for the peak: "1.2 GiB allocated at the end of Conv2D_2 forward". */
export function peakText({ peak, counters }: MemoryCurve, table: LayerTable | null): string {
  const [counter] = counters as [Counter];
  return `${formatBytes(peak[counter])} ${COUNTER_TEXTS[counter]} at the end of ${spanName(peak, table)}`;
}
