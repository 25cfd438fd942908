import { beforeEach, describe, expect, it } from "vitest";
import type { Session, SessionSummary } from "../api/types";
import {
  chooseRun,
  chooseSpan,
  createStore,
  cycled,
  followLink,
  linkOf,
  moveLayer,
  moveSpan,
  moveStep,
  pinStep,
  preferredRun,
  type Store,
  toggleLatest,
  zoomBy,
  zoomTimesBy,
} from "./store";

const NO_LINK = { view: null, run: null, row: null, step: null };

function session(last: number): Session {
  return {
    revision: String(last),
    name: "a",
    status: "live",
    model: "Net",
    framework: "pytorch",
    started: 0,
    every: 10,
    overhead_budget: null,
    steps: null,
    overhead: null,
    step_seconds: null,
    tracing_seconds: null,
    profiled: "in training",
    rank: 0,
    world_size: 1,
    notices: [],
    problems: [],
    ended_because: "",
    first_step: 0,
    last_step: last,
    kinds: {},
    profiles: {},
    anomalies: 0,
    table_revision: "1",
  };
}

function grow(store: Store, last: number): void {
  store.steps.value = Float64Array.from({ length: last / 10 + 1 }, (_, i) => 10 * i);
  store.session.value = session(last);
}

let store: Store;
beforeEach(() => {
  store = createStore({ ...NO_LINK, run: "a" });
  grow(store, 100);
});

describe("the step", () => {
  it("follows the newest until one is pinned, which stays when new data arrives", () => {
    expect(store.step.value).toBe(100);
    grow(store, 110);
    expect(store.step.value).toBe(110);
    pinStep(store, 47);
    expect(store.step.value).toBe(40);
    grow(store, 200);
    expect(store.step.value).toBe(40);
  });

  it("is never before the first, whatever a link says", () => {
    const early = createStore({ ...NO_LINK, run: "a", step: 3 });
    expect(early.step.value).toBe(3);
    early.session.value = { ...session(100), first_step: 20 };
    expect(early.step.value).toBe(20);
  });

  it("moves by one frame and holds at both ends", () => {
    moveStep(store, -1);
    expect(store.pinned.value).toBe(90);
    moveStep(store, 5);
    expect(store.pinned.value).toBe(100);
    pinStep(store, -5);
    moveStep(store, -1);
    expect(store.pinned.value).toBe(0);
  });

  it("can be let go and held", () => {
    toggleLatest(store);
    expect(store.pinned.value).toBe(100);
    grow(store, 150);
    toggleLatest(store);
    expect(store.step.value).toBe(150);
  });

  it("is null while nothing is recorded, and cannot be pinned then", () => {
    const empty = createStore(NO_LINK);
    pinStep(empty, 3);
    moveStep(empty, 1);
    expect(empty.step.value).toBeNull();
  });
});

describe("the run", () => {
  it("that is live is preferred, then the one written to last", () => {
    const summary = (name: string, status: SessionSummary["status"], last_written: number | null) => ({
      name,
      status,
      last_written,
      last_step: null,
    });
    expect(preferredRun([])).toBeNull();
    expect(preferredRun([summary("old", "finished", 1), summary("new", "failed", 2)])).toBe("new");
    expect(preferredRun([summary("live", "live", 1), summary("new", "finished", 2)])).toBe("live");
    expect(preferredRun([summary("only", "lost", null)])).toBe("only");
  });

  it("when changed leaves nothing of the one before, but keeps the layer's name", () => {
    store.layerName.value = "Dense_1";
    pinStep(store, 40);
    store.zoom.value = { first: 0, last: 50 };
    chooseRun(store, "b");
    expect(store.session.value).toBeNull();
    expect(store.steps.value).toHaveLength(0);
    expect(store.pinned.value).toBeNull();
    expect(store.zoom.value).toBeNull();
    expect(store.layerName.value).toBe("Dense_1");
  });

  it("when chosen again changes nothing", () => {
    pinStep(store, 40);
    chooseRun(store, "a");
    expect(store.step.value).toBe(40);
  });
});

describe("the layer", () => {
  it("is the named one, or the first; moving stays within the table", () => {
    const shapes = { input_shapes: [], output_shapes: [], input_dtypes: [], output_dtypes: [] };
    const layer = { ...shapes, own_name: "", type: "Dense", dtype: "", trainable: true };
    const names = ["Dense_1", "Dense_2", "Output"];
    store.layers.value = {
      layers: names.map((name) => ({ ...layer, name, flops: null, parameters: 0 })),
      parameters: [],
    };
    expect(store.layer.value).toBe(0);
    moveLayer(store, 1);
    expect(store.layerName.value).toBe("Dense_2");
    moveLayer(store, 9);
    expect(store.layer.value).toBe(2);
    store.layerName.value = "not in this run";
    expect(store.layer.value).toBe(0);
  });
});

describe("the span", () => {
  beforeEach(() => {
    const shapes = { input_shapes: [], output_shapes: [], input_dtypes: [], output_dtypes: [] };
    const layer = { ...shapes, own_name: "", type: "Dense", dtype: "", trainable: true, flops: null, parameters: 0 };
    store.layers.value = { layers: ["A", "B"].map((name) => ({ ...layer, name })), parameters: [] };
    // The whole step, then A, B, and B again on the way back.
    const rows = [
      [-1, 3, 0, 10],
      [0, 0, 0, 2],
      [1, 0, 2, 3],
      [1, 1, 5, 4],
    ];
    const columns = ["layer", "phase", "start", "duration"];
    const trace = { step: 100, firstStep: 0, columns, values: Float64Array.from(rows.flat()) };
    store.profiles.value = { trace };
  });

  it("is the first of the chosen layer until another is chosen, which chooses its layer", () => {
    expect(store.span.value?.index).toBe(1);
    moveLayer(store, 1);
    expect(store.span.value?.index).toBe(2);
    moveSpan(store, 1);
    expect([store.span.value?.index, store.span.value?.phase]).toEqual([3, "backward"]);
    moveSpan(store, 9);
    expect(store.span.value?.index).toBe(3);
    moveSpan(store, -2);
    expect([store.span.value?.index, store.layerName.value]).toEqual([1, "A"]);
    moveSpan(store, -1);
    expect([store.span.value?.layer, store.layerName.value]).toEqual([null, "A"]);
  });

  it("stays in sight where a part of the step is shown", () => {
    zoomTimesBy(store, 0.5);
    expect(store.timeZoom.value).toEqual({ from: 0, to: 5 });
    moveSpan(store, 1);
    expect(store.timeZoom.value).toEqual({ from: 0, to: 5 });
    moveSpan(store, 1);
    expect(store.timeZoom.value).toEqual({ from: 4.5, to: 9.5 });
    zoomTimesBy(store, 4);
    expect(store.timeZoom.value).toBeNull();
  });

  it("goes with the run, as all that was measured in it", () => {
    zoomTimesBy(store, 0.5);
    const span = store.trace.value?.spans[3];
    if (span) chooseSpan(store, span);
    chooseRun(store, "b");
    expect([store.spanIndex.value, store.timeZoom.value, store.profiles.value]).toEqual([null, null, {}]);
    moveSpan(store, 1);
    zoomTimesBy(store, 0.5);
    expect([store.spanIndex.value, store.timeZoom.value]).toEqual([null, null]);
  });
});

describe("links and zoom", () => {
  it("a link brings back the state that it was made of", () => {
    store.view.value = "activations";
    store.layerName.value = "Dense_2";
    pinStep(store, 30);
    const other = createStore(NO_LINK);
    followLink(other, linkOf(store));
    expect(linkOf(other)).toEqual({ view: "activations", run: "a", row: "Dense_2", step: 30 });
  });

  it("a link without a step means the newest", () => {
    pinStep(store, 30);
    followLink(store, { ...NO_LINK, view: "gradients" });
    expect(store.step.value).toBe(100);
    expect(store.view.value).toBe("gradients");
  });

  it("a link that says nothing changes nothing", () => {
    pinStep(store, 30);
    followLink(store, NO_LINK);
    expect(store.step.value).toBe(30);
  });

  it("zooms around the step that is shown, and out to everything", () => {
    pinStep(store, 50);
    zoomBy(store, 0.5);
    expect(store.zoom.value).toEqual({ first: 25, last: 75 });
    zoomBy(store, 4);
    expect(store.zoom.value).toBeNull();
  });

  it("cycled goes round", () => {
    expect(cycled(["a", "b", "c"], "c", 1)).toBe("a");
    expect(cycled(["a", "b", "c"], "a", -1)).toBe("c");
  });
});
