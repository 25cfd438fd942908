/** Which key does what. */

import { VIEW_TITLES, VIEWS } from "../model/hash";
import { sortKeys } from "../model/layers";
import { MEMORY_KEYS, TIME_KEYS } from "../model/profile";
import type { Sorting } from "../model/sorting";
import {
  ACTIVATION_STATISTICS,
  cycled,
  GRADIENT_KINDS,
  moveLayer,
  moveSpan,
  moveStep,
  pinStep,
  type Store,
  toggleLatest,
  zoomBy,
  zoomTimesBy,
} from "../model/store";

export interface Binding {
  /** As `KeyboardEvent.key`; several do the same. */
  readonly keys: readonly string[];
  readonly shown: string;
  readonly does: string;
  readonly run: (store: Store) => void;
}

export const BINDINGS: readonly Binding[] = [
  ...VIEWS.map((view, i) => ({
    keys: [String(i + 1)],
    shown: String(i + 1),
    does: `show ${VIEW_TITLES[view]}`,
    run: (store: Store) => {
      store.view.value = view;
    },
  })),
  { keys: ["ArrowLeft"], shown: "←", does: "previous frame", run: (store) => moveStep(store, -1) },
  { keys: ["ArrowRight"], shown: "→", does: "next frame", run: (store) => moveStep(store, 1) },
  { keys: ["Home"], shown: "Home", does: "first frame", run: (store) => pinStep(store, 0) },
  { keys: ["End", "l"], shown: "l", does: "follow the latest step, or stay at this one", run: toggleLatest },
  { keys: ["j"], shown: "j", does: "next layer", run: (store) => moveLayer(store, 1) },
  { keys: ["k"], shown: "k", does: "previous layer", run: (store) => moveLayer(store, -1) },
  { keys: ["."], shown: ".", does: "next span of the trace", run: (store) => moveSpan(store, 1) },
  { keys: [","], shown: ",", does: "previous span of the trace", run: (store) => moveSpan(store, -1) },
  { keys: ["m"], shown: "m", does: "next choice of what the picture shows", run: (store) => cycleMeasure(store, 1) },
  {
    keys: ["M"],
    shown: "M",
    does: "previous choice of what the picture shows",
    run: (store) => cycleMeasure(store, -1),
  },
  {
    keys: ["+", "="],
    shown: "+",
    does: "zoom in on the steps around this one, or the times around this span",
    run: (store) => zoom(store, 0.5),
  },
  { keys: ["-"], shown: "−", does: "zoom out", run: (store) => zoom(store, 2) },
  { keys: ["Escape"], shown: "Esc", does: "show all steps and the whole step; close this list", run: leave },
  { keys: ["t"], shown: "t", does: "the table behind the pictures, and back", run: toggleTable },
  { keys: ["/"], shown: "/", does: "filter the layers", run: focusFilter },
  { keys: ["s"], shown: "s", does: "sort the layers by the next column", run: (store) => cycleSort(store) },
  { keys: ["S"], shown: "S", does: "turn the order around", run: reverseSort },
  { keys: ["r"], shown: "r", does: "choose a run", run: () => focus("run-picker") },
  { keys: ["?"], shown: "?", does: "this list", run: (store) => showKeys(store, !store.keysShown.value) },
];

/** Returns whether a key belongs to what has the focus: a field to write in, a choice, a slider. */
export function isTyping(target: EventTarget | null): boolean {
  const element = target as Partial<HTMLElement> | null;
  return ["INPUT", "SELECT", "TEXTAREA"].includes(element?.tagName ?? "") || element?.isContentEditable === true;
}

/** Does what the key stands for; returns whether it stands for something. */
export function pressKey(store: Store, event: Pick<KeyboardEvent, "key" | "ctrlKey" | "metaKey" | "altKey">): boolean {
  if (event.ctrlKey || event.metaKey || event.altKey) return false;
  const binding = BINDINGS.find(({ keys }) => keys.includes(event.key));
  binding?.run(store);
  return binding !== undefined;
}

function cycleMeasure(store: Store, by: number): void {
  if (store.view.value === "gradients") store.gradientKind.value = cycled(GRADIENT_KINDS, store.gradientKind.value, by);
  if (store.view.value === "activations") {
    store.activationStatistic.value = cycled(ACTIVATION_STATISTICS, store.activationStatistic.value, by);
  }
}

function leave(store: Store): void {
  if (store.keysShown.value) showKeys(store, false);
  else {
    store.zoom.value = null;
    store.timeZoom.value = null;
  }
}

/** Zooms into what the view's picture has across: a step's time, or the steps. */
function zoom(store: Store, factor: number): void {
  if (showsOneStep(store)) zoomTimesBy(store, factor);
  else zoomBy(store, factor);
}

function showsOneStep(store: Store): boolean {
  return store.view.value === "trace" || store.view.value === "memory";
}

function showKeys(store: Store, shown: boolean): void {
  store.keysShown.value = shown;
}

function toggleTable(store: Store): void {
  store.asTable.value = !store.asTable.value;
}

function cycleSort(store: Store): void {
  const next = <Key extends string>(keys: readonly Key[], sort: { value: Sorting<Key> }) => {
    const key = cycled(keys, sort.value.key, 1);
    sort.value = { key, descending: showsOneStep(store) && key !== "name" && key !== "order" };
  };
  if (store.view.value === "trace") next(TIME_KEYS, store.timeSort);
  else if (store.view.value === "memory") next(MEMORY_KEYS, store.memorySort);
  else next(sortKeys(store.session.value?.profiles ?? {}), store.sort);
}

function reverseSort(store: Store): void {
  const reverse = <Key extends string>(sort: { value: Sorting<Key> }) => {
    sort.value = { ...sort.value, descending: !sort.value.descending };
  };
  if (store.view.value === "trace") reverse(store.timeSort);
  else if (store.view.value === "memory") reverse(store.memorySort);
  else reverse(store.sort);
}

function focusFilter(store: Store): void {
  if (!showsOneStep(store)) store.view.value = "overview";
  // The field may be only about to appear.
  requestAnimationFrame(() => focus("layer-filter"));
}

function focus(id: string): void {
  document.getElementById(id)?.focus();
}
