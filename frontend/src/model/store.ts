/** The viewer's state: what is chosen, and the newest answers of the server. Components read it, actions change it. */

import { computed, type ReadonlySignal, type Signal, signal } from "@preact/signals";
import type { Frame, LayerTable, Profiles, Session, SessionSummary, StepRange } from "../api/types";
import type { Link, View } from "./hash";
import { layerNamed, type Sort } from "./layers";
import type { MemoryKey, TimeKey } from "./profile";
import type { Sorting } from "./sorting";
import { chosenSpan, movedTo, type Span, type TimeRange, type Trace, traceOf, zoomedTimes } from "./trace";
import { lastAtOrBelow, zoomed } from "./viewport";

export const GRADIENT_KINDS = ["gradients", "activation_gradients", "updates", "weights"] as const;
export type GradientKind = (typeof GRADIENT_KINDS)[number];

export const ACTIVATION_STATISTICS = ["std", "mean", "min", "max", "zero_share"] as const;
export type ActivationStatistic = (typeof ACTIVATION_STATISTICS)[number];

/** How the last question to the server went. */
export type Connection =
  | { readonly state: "loading" | "fresh" }
  | { readonly state: "stale" | "refused"; readonly sentence: string };

export interface Store {
  readonly sessions: Signal<readonly SessionSummary[] | null>;
  /** What should be known of the log directory as a whole. */
  readonly directoryNotices: Signal<readonly string[]>;
  readonly session: Signal<Session | null>;
  readonly layers: Signal<LayerTable | null>;
  /** The steps that have a frame, ascending. */
  readonly steps: Signal<Float64Array>;
  readonly frame: Signal<Frame | null>;
  /** Those that the view shows, of the newest step up to the one that is shown. */
  readonly profiles: Signal<Profiles>;
  readonly connection: Signal<Connection>;
  /** Counts up when everything should be asked for again. */
  readonly generation: Signal<number>;

  readonly run: Signal<string | null>;
  readonly view: Signal<View>;
  /** The step that was chosen; null follows the newest. */
  readonly pinned: Signal<number | null>;
  readonly layerName: Signal<string | null>;
  readonly zoom: Signal<StepRange | null>;
  readonly gradientKind: Signal<GradientKind>;
  readonly activationStatistic: Signal<ActivationStatistic>;
  readonly asTable: Signal<boolean>;
  readonly filter: Signal<string>;
  readonly sort: Signal<Sort>;
  readonly timeSort: Signal<Sorting<TimeKey>>;
  readonly memorySort: Signal<Sorting<MemoryKey>>;
  /** The part of the step that is shown; null for all of it. */
  readonly timeZoom: Signal<TimeRange | null>;
  /** The number of the span that was chosen in the trace. */
  readonly spanIndex: Signal<number | null>;
  readonly keysShown: Signal<boolean>;

  /** The step that all views show, not before the first that is recorded; null while none is. */
  readonly step: ReadonlySignal<number | null>;
  /** The chosen layer's number; the first one where none was chosen or the chosen one is not in this run. */
  readonly layer: ReadonlySignal<number>;
  readonly trace: ReadonlySignal<Trace | null>;
  /** The chosen span; the first one of the chosen layer where none was. */
  readonly span: ReadonlySignal<Span | null>;
}

export function createStore(link: Link): Store {
  const session = signal<Session | null>(null);
  const layers = signal<LayerTable | null>(null);
  const pinned = signal(link.step);
  const layerName = signal(link.row);
  const profiles = signal<Profiles>({});
  const spanIndex = signal<number | null>(null);
  const layer = computed(() => {
    const table = layers.value;
    return table && layerName.value !== null ? (layerNamed(table, layerName.value) ?? 0) : 0;
  });
  const traceProfile = computed(() => profiles.value.trace);
  const trace = computed(() => traceOf(traceProfile.value));
  return {
    sessions: signal<readonly SessionSummary[] | null>(null),
    directoryNotices: signal<readonly string[]>([]),
    session,
    layers,
    steps: signal(new Float64Array()),
    frame: signal<Frame | null>(null),
    connection: signal<Connection>({ state: "loading" }),
    profiles,
    generation: signal(0),
    run: signal(link.run),
    view: signal(link.view ?? "overview"),
    pinned,
    layerName,
    zoom: signal<StepRange | null>(null),
    gradientKind: signal<GradientKind>("gradients"),
    activationStatistic: signal<ActivationStatistic>("std"),
    asTable: signal(false),
    filter: signal(""),
    sort: signal<Sort>({ key: "order", descending: false }),
    timeSort: signal<Sorting<TimeKey>>({ key: "share", descending: true }),
    memorySort: signal<Sorting<MemoryKey>>({ key: "total", descending: true }),
    timeZoom: signal<TimeRange | null>(null),
    spanIndex,
    keysShown: signal(false),
    step: computed(() => {
      const { first_step: first, last_step: last } = session.value ?? { first_step: null, last_step: null };
      return pinned.value === null ? last : Math.max(pinned.value, first ?? pinned.value);
    }),
    layer,
    trace,
    span: computed(() => chosenSpan(trace.value, spanIndex.value, layer.value)),
  };
}

/** Returns the run to show first: a live one before others, then the one written to last. */
export function preferredRun(sessions: readonly SessionSummary[]): string | null {
  const rank = (summary: SessionSummary) => (summary.status === "live" ? 1e12 : 0) + (summary.last_written ?? 0);
  const [first, ...rest] = sessions;
  if (first === undefined) return null;
  return rest.reduce((best, summary) => (rank(summary) > rank(best) ? summary : best), first).name;
}

/** Shows another run; what was known of the one before is forgotten, the chosen layer's name is kept. */
export function chooseRun(store: Store, run: string): void {
  if (store.run.value === run) return;
  store.run.value = run;
  store.pinned.value = null;
  store.zoom.value = null;
  store.timeZoom.value = null;
  store.spanIndex.value = null;
  store.profiles.value = {};
  store.session.value = null;
  store.layers.value = null;
  store.frame.value = null;
  store.steps.value = new Float64Array();
}

export function chooseLayer(store: Store, index: number): void {
  const layer = store.layers.value?.layers[index];
  if (layer) store.layerName.value = layer.name;
}

/** Chooses the layer `by` places further on in execution order, staying within the table. */
export function moveLayer(store: Store, by: number): void {
  const count = store.layers.value?.layers.length ?? 0;
  if (count > 0) chooseLayer(store, Math.min(count - 1, Math.max(0, store.layer.value + by)));
}

/** Chooses a span of the trace, and its layer with it. */
export function chooseSpan(store: Store, span: Span): void {
  store.spanIndex.value = span.index;
  if (span.layer !== null) chooseLayer(store, span.layer);
}

/** Chooses the span `by` places further on in the order in which they start, staying within the trace. */
export function moveSpan(store: Store, by: number): void {
  const trace = store.trace.value;
  const spans = trace?.spans ?? [];
  const from = store.span.value?.index ?? -1;
  const next = spans[Math.min(spans.length - 1, Math.max(0, from + by))];
  if (trace === null || next === undefined) return;
  chooseSpan(store, next);
  store.timeZoom.value = movedTo(store.timeZoom.value, trace.end, next);
}

/** Narrows (factor below 1) or widens the part of the step that is shown around the chosen span. */
export function zoomTimesBy(store: Store, factor: number): void {
  const trace = store.trace.value;
  if (trace === null) return;
  const shown = store.timeZoom.value ?? { from: 0, to: trace.end };
  const span = store.span.value;
  const centre = span === null ? (shown.from + shown.to) / 2 : (span.start + span.end) / 2;
  store.timeZoom.value = zoomedTimes(shown, trace.end, centre, factor);
}

/** Pins the frame at `step`, or the newest one before it; before the first frame, the first. */
export function pinStep(store: Store, step: number): void {
  const steps = store.steps.value;
  if (steps.length === 0) return;
  store.pinned.value = steps[Math.max(0, lastAtOrBelow(steps, step))] as number;
}

/** Pins the frame `by` frames further on; the first and the last one hold. */
export function moveStep(store: Store, by: number): void {
  const steps = store.steps.value;
  const step = store.step.value;
  if (steps.length === 0 || step === null) return;
  const index = Math.max(0, lastAtOrBelow(steps, step)) + by;
  store.pinned.value = steps[Math.min(steps.length - 1, Math.max(0, index))] as number;
}

/** Follows the newest step, or stays at the one that is shown. */
export function toggleLatest(store: Store): void {
  store.pinned.value = store.pinned.value === null ? store.step.value : null;
}

/** Narrows (factor below 1) or widens the steps that are shown around the current one. */
export function zoomBy(store: Store, factor: number): void {
  const { first_step: first, last_step: last } = store.session.value ?? { first_step: null, last_step: null };
  const step = store.step.value;
  if (first === null || last === null || step === null) return;
  const whole = { first, last };
  store.zoom.value = zoomed(store.zoom.value ?? whole, whole, step, factor);
}

/** Returns the item after (or before) `current`, round and round. */
export function cycled<T>(items: readonly T[], current: T, by: number): T {
  return items[(items.indexOf(current) + by + items.length) % items.length] as T;
}

export function linkOf(store: Store): Link {
  return { view: store.view.value, run: store.run.value, row: store.layerName.value, step: store.pinned.value };
}

/** Takes over what a link says; what it does not say stays, except that no step means the newest. */
export function followLink(store: Store, link: Link): void {
  // The bare name of the tab, as after a click on it, says nothing: all stays as it is.
  if (Object.values(link).every((said) => said === null)) return;
  if (link.run !== null) chooseRun(store, link.run);
  if (link.view !== null) store.view.value = link.view;
  if (link.row !== null) store.layerName.value = link.row;
  store.pinned.value = link.step;
}
