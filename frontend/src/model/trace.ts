/** The trace of one step: its spans, laid out in lanes as a flame chart is, and what lies where. */

import type { LayerTable, Profile } from "../api/types";
import { formatBytes, formatCount, formatDuration, formatShare, formatTensors } from "./format";
import { layerLabel } from "./layers";

/** In the order of the numbers that a trace gives them. */
export const PHASES = ["forward", "backward", "optimizer", "step"] as const;
export type Phase = (typeof PHASES)[number];

/** One call of a layer, or one phase of the whole model. Times are in seconds from the beginning of the step. */
export interface Span {
  readonly index: number;
  /** Null for the whole model. */
  readonly layer: number | null;
  readonly phase: Phase;
  readonly start: number;
  readonly duration: number;
  readonly end: number;
  /** When the span ended, in bytes; NaN where it was not measured. */
  readonly allocated: number;
  readonly reserved: number;
  readonly process: number;
  /** How deep it lies within other spans. */
  readonly lane: number;
}

export interface Trace {
  readonly step: number;
  /** By start; of those that start together the longer first. */
  readonly spans: readonly Span[];
  readonly lanes: number;
  /** When the last span ends. */
  readonly end: number;
}

/** A span may end this much, in seconds, after the next one starts and still lie before it: clocks are rounded. */
const ROUNDING = 1e-9;

/** Returns the trace in `profile`, or null where there is none, or no time passes in it. */
export function traceOf(profile: Profile | undefined): Trace | null {
  if (profile === undefined || profile.step === null) return null;
  const unlaid = spansOf(profile).sort((a, b) => a.start - b.start || b.end - a.end || depthRank(a) - depthRank(b));
  // Those that have not ended yet: a span lies below all of them, within them or not.
  let open: Array<{ end: number; lane: number }> = [];
  const spans = unlaid.map((span, index) => {
    open = open.filter(({ end }) => end > span.start + ROUNDING);
    const lane = open.reduce((deepest, other) => Math.max(deepest, other.lane), -1) + 1;
    open.push({ end: span.end, lane });
    return { ...span, index, lane };
  });
  const end = spans.reduce((last, span) => Math.max(last, span.end), 0);
  if (end === 0) return null;
  return { step: profile.step, spans, lanes: spans.reduce((most, span) => Math.max(most, span.lane + 1), 0), end };
}

function spansOf({ columns, values }: Profile): Omit<Span, "index" | "lane">[] {
  const width = columns.length;
  const at = (row: number, column: string) => values[row * width + columns.indexOf(column)] ?? Number.NaN;
  return Array.from({ length: values.length / width }, (_, row) => {
    const [start, duration, layer] = [at(row, "start"), at(row, "duration"), at(row, "layer")];
    return {
      layer: layer < 0 ? null : layer,
      phase: PHASES[at(row, "phase")] ?? "step",
      start,
      duration,
      end: start + duration,
      allocated: at(row, "allocated"),
      reserved: at(row, "reserved"),
      process: at(row, "process"),
    };
  }).filter(({ end }) => Number.isFinite(end));
}

/** Of spans that start and end together, the step holds the phases, and these the layers. */
function depthRank({ layer, phase }: Pick<Span, "layer" | "phase">): number {
  return layer !== null ? 2 : phase === "step" ? 0 : 1;
}

/** Returns how long the whole model was in a phase, several times added up; null where that was not recorded. */
export function phaseDuration(trace: Trace | null, phase: Phase): number | null {
  const spans = trace?.spans.filter((span) => span.layer === null && span.phase === phase) ?? [];
  return spans.length === 0 ? null : spans.reduce((sum, span) => sum + span.duration, 0);
}

/** Returns the span that is shown as chosen: number `index` while it is of `layer`, else the first one of `layer`. */
export function chosenSpan(trace: Trace | null, index: number | null, layer: number): Span | null {
  const span = index === null ? undefined : trace?.spans[index];
  // Phases of the whole model belong to no layer, and may be chosen whichever layer is.
  if (span && (span.layer === layer || span.layer === null)) return span;
  return trace?.spans.find((other) => other.layer === layer) ?? null;
}

/** What is known of a span in words: name and value, for the pointer and for those who cannot see the picture. */
export function spanFacts(trace: Trace, span: Span, table: LayerTable | null): Array<{ name: string; value: string }> {
  const whole = phaseDuration(trace, "step");
  const share = whole && span.phase !== "step" ? `, ${formatShare(span.duration / whole)} of the step` : "";
  const layer = span.layer === null ? undefined : table?.layers[span.layer];
  const memory = [
    { name: "allocated", bytes: span.allocated },
    { name: "reserved", bytes: span.reserved },
    { name: "process", bytes: span.process },
  ].filter(({ bytes }) => !Number.isNaN(bytes));
  return [
    { name: "starts at", value: formatDuration(span.start) },
    { name: "takes", value: formatDuration(span.duration) + share },
    ...(layer
      ? [
          { name: "input", value: formatTensors(layer.input_shapes, layer.input_dtypes) },
          { name: "output", value: formatTensors(layer.output_shapes, layer.output_dtypes) },
        ]
      : []),
    ...memory.map(({ name, bytes }) => ({ name: `${name} when done`, value: formatBytes(bytes) })),
  ];
}

/** Returns what a span is called: "Conv2D_1 forward", "whole model, backward", "step". */
export function spanName(span: Span, table: LayerTable | null): string {
  if (span.layer !== null) return `${layerLabel(table, span.layer)} ${span.phase}`;
  return span.phase === "step" ? "the whole step" : `the whole model's ${span.phase}`;
}

/** Returns the sentence that stands for the picture. */
export function traceSummary(trace: Trace): string {
  const whole = phaseDuration(trace, "step");
  const phases = PHASES.filter((phase) => phase !== "step").flatMap((phase) => {
    const duration = phaseDuration(trace, phase);
    return duration === null ? [] : [`${phase} ${formatDuration(duration)}`];
  });
  const length = `${formatCount(trace.spans.length)} spans in ${formatDuration(whole ?? trace.end)}`;
  return `Timeline of step ${formatCount(trace.step)}: ${[length, ...phases].join(", ")}.`;
}

/** A part of a step, in seconds. */
export interface TimeRange {
  readonly from: number;
  readonly to: number;
}

/** Where times lie across a picture. Lengths are CSS pixels. */
export interface TimeView extends TimeRange {
  readonly left: number;
  readonly width: number;
}

export function xOfTime(view: TimeView, time: number): number {
  return view.left + ((time - view.from) / (view.to - view.from)) * (view.width - view.left);
}

export function timeOfX(view: TimeView, x: number): number {
  const share = (x - view.left) / (view.width - view.left);
  return view.from + Math.min(1, Math.max(0, share)) * (view.to - view.from);
}

/** Returns the span under a point of a flame chart whose lanes are `laneHeight` high, within `reach` pixels of it. */
export function spanAt(trace: Trace, view: TimeView, laneHeight: number, x: number, y: number): Span | null {
  const REACH = 2;
  const lane = Math.floor(y / laneHeight);
  let nearest: { span: Span; distance: number } | null = null;
  for (const span of trace.spans) {
    if (span.lane !== lane) continue;
    const [from, to] = [xOfTime(view, span.start), xOfTime(view, span.end)];
    const distance = x < from ? from - x : x > to ? x - to : 0;
    if (distance <= REACH && (nearest === null || distance < nearest.distance)) nearest = { span, distance };
  }
  return nearest?.span ?? null;
}

/** Returns the part of a step between two points of a drag, or null where they are closer than a drag is. */
export function draggedTimes(view: TimeView, fromX: number, toX: number): TimeRange | null {
  const LEAST_DRAG = 6;
  if (Math.abs(toX - fromX) < LEAST_DRAG) return null;
  return { from: timeOfX(view, Math.min(fromX, toX)), to: timeOfX(view, Math.max(fromX, toX)) };
}

/** Returns a part of a step `factor` times as long as `range`, around `centre` as far as the step goes; null for all. */
export function zoomedTimes(range: TimeRange, end: number, centre: number, factor: number): TimeRange | null {
  const length = (range.to - range.from) * factor;
  if (length >= end) return null;
  const from = Math.min(end - length, Math.max(0, centre - length / 2));
  return { from, to: from + length };
}

/** Returns `range` moved so that a span can be seen in it; as it is where it can already, or where it is all. */
export function movedTo(range: TimeRange | null, end: number, span: Span): TimeRange | null {
  if (range === null || (span.start >= range.from && span.end <= range.to)) return range;
  // One that is longer than the range is seen from its beginning.
  const half = Math.min(span.duration, range.to - range.from) / 2;
  return zoomedTimes(range, end, span.start + half, 1);
}
