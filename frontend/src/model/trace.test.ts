import { describe, expect, it } from "vitest";
import type { LayerTable, Profile } from "../api/types";
import {
  chosenSpan,
  draggedTimes,
  movedTo,
  phaseDuration,
  spanAt,
  spanFacts,
  spanName,
  type Trace,
  timeOfX,
  traceOf,
  traceSummary,
  xOfTime,
  zoomedTimes,
} from "./trace";

const COLUMNS = ["layer", "phase", "start", "duration", "allocated", "reserved", "process"];
const NAN = Number.NaN;

type Row = readonly [layer: number, phase: number, start: number, duration: number, allocated?: number];

function profile(...rows: Row[]): Profile {
  const values = rows.flatMap(([layer, phase, start, duration, allocated = NAN]) => [
    ...[layer, phase, start, duration],
    ...[allocated, NAN, 2 ** 30],
  ]);
  return { step: 120, firstStep: 0, columns: COLUMNS, values: Float64Array.from(values) };
}

// Layer 0 holds layer 1; layer 2 comes after it. Rows are not in their order.
const TRACE = traceOf(
  profile(
    [2, 0, 5, 2],
    [-1, 3, 0, 20],
    [-1, 0, 0, 8],
    [0, 0, 0, 5],
    [1, 0, 1, 3, 2 ** 20],
    [-1, 1, 8, 6],
    [2, 1, 8, 4],
    [0, 1, 11, 3],
    [-1, 0, 14, 1],
  ),
) as Trace;

const shape = {
  input_shapes: [[64, 10]],
  output_shapes: [[64, 4]],
  input_dtypes: ["float32"],
  output_dtypes: ["float16"],
};
const TABLE: LayerTable = {
  layers: ["Block_1", "Linear_1", "Linear_2"].map((name) => ({
    ...shape,
    name,
    own_name: name,
    type: "Linear",
    dtype: "",
    trainable: true,
    flops: null,
    parameters: 0,
  })),
  parameters: [],
};

const brief = (trace: Trace) => trace.spans.map(({ layer, phase, lane }) => `${layer ?? "model"} ${phase} ${lane}`);

/** Thin spaces as one types them. */
const typed = (text: string) => text.replaceAll("\u202f", "_");

describe("traceOf", () => {
  it("orders spans by start, and puts each below those that have not ended", () => {
    expect(brief(TRACE)).toEqual([
      "model step 0",
      "model forward 1",
      "0 forward 2",
      "1 forward 3",
      "2 forward 2",
      "model backward 1",
      "2 backward 2",
      "0 backward 3",
      "model forward 1",
    ]);
    expect([TRACE.lanes, TRACE.end, TRACE.step]).toEqual([4, 20, 120]);
    expect(TRACE.spans.map(({ index }) => index)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it("does not take a rounded end for an overlap", () => {
    const trace = traceOf(profile([0, 0, 0, 0.1 + 0.2], [1, 0, 0.3, 1])) as Trace;
    expect(trace.spans.map(({ lane }) => lane)).toEqual([0, 0]);
  });

  it("leaves out spans that never ended, and is null where there is no trace", () => {
    expect(traceOf(profile([0, 0, 0, NAN], [1, 0, 0, 1]))?.spans).toHaveLength(1);
    expect(traceOf({ ...profile([0, 0, 0, 1]), step: null })).toBeNull();
    expect(traceOf(profile())).toBeNull();
    expect(traceOf(undefined)).toBeNull();
  });
});

describe("words", () => {
  it("phases that ran several times are added up", () => {
    expect(phaseDuration(TRACE, "forward")).toBe(9);
    expect(phaseDuration(TRACE, "optimizer")).toBeNull();
    expect(typed(traceSummary(TRACE))).toBe("Timeline of step 120: 9 spans in 20_s, forward 9_s, backward 6_s.");
  });

  it("tell all that is known of a span, and nothing that is not", () => {
    const span = TRACE.spans[3] as Trace["spans"][number];
    expect(spanName(span, TABLE)).toBe("Linear_1 forward");
    expect(spanFacts(TRACE, span, TABLE).map(({ name, value }) => typed(`${name}: ${value}`))).toEqual([
      "starts at: 1_s",
      "takes: 3_s, 15_% of the step",
      "input: 64×10 float32",
      "output: 64×4 float16",
      "allocated when done: 1_MiB",
      "process when done: 1_GiB",
    ]);
    const [step, forward] = TRACE.spans;
    expect(step && spanName(step, TABLE)).toBe("the whole step");
    expect(forward && spanName(forward, TABLE)).toBe("the whole model's forward");
  });
});

describe("the chosen span", () => {
  it("is the one that was chosen while it is of the layer, else the layer's first", () => {
    expect(chosenSpan(TRACE, 7, 0)?.index).toBe(7);
    expect(chosenSpan(TRACE, 7, 2)?.index).toBe(4);
    expect(chosenSpan(TRACE, null, 0)?.index).toBe(2);
    expect(chosenSpan(TRACE, 5, 2)?.index).toBe(5);
    expect(chosenSpan(TRACE, null, 9)).toBeNull();
    expect(chosenSpan(null, 1, 0)).toBeNull();
  });
});

describe("places", () => {
  const view = { left: 50, width: 250, from: 0, to: 20 };

  it("times and pixels agree, and stay within the plot", () => {
    expect(xOfTime(view, 5)).toBe(100);
    expect(timeOfX(view, 100)).toBe(5);
    expect(timeOfX(view, 0)).toBe(0);
    expect(timeOfX(view, 999)).toBe(20);
  });

  it("under a point lies the span of that lane, or one within reach", () => {
    expect(spanAt(TRACE, view, 20, 80, 45)?.index).toBe(2);
    expect(spanAt(TRACE, view, 20, 80, 65)?.index).toBe(3);
    expect(spanAt(TRACE, view, 20, 121, 45)?.index).toBe(4);
    expect(spanAt(TRACE, view, 20, 125, 45)).toBeNull();
    expect(spanAt(TRACE, view, 20, 80, 999)).toBeNull();
  });

  it("a drag is a range of times, unless it is too short for one", () => {
    expect(draggedTimes(view, 150, 100)).toEqual({ from: 5, to: 10 });
    expect(draggedTimes(view, 100, 104)).toBeNull();
  });

  it("zooms around the chosen time, as far as the step goes, and out to all of it", () => {
    expect(zoomedTimes({ from: 0, to: 20 }, 20, 12, 0.5)).toEqual({ from: 7, to: 17 });
    expect(zoomedTimes({ from: 0, to: 20 }, 20, 1, 0.5)).toEqual({ from: 0, to: 10 });
    expect(zoomedTimes({ from: 0, to: 20 }, 20, 19, 0.5)).toEqual({ from: 10, to: 20 });
    expect(zoomedTimes({ from: 7, to: 17 }, 20, 12, 2)).toBeNull();
  });

  it("follows a span out of sight, and otherwise stays", () => {
    const last = TRACE.spans[8] as Trace["spans"][number];
    expect(movedTo(null, 20, last)).toBeNull();
    expect(movedTo({ from: 10, to: 16 }, 20, last)).toEqual({ from: 10, to: 16 });
    expect(movedTo({ from: 0, to: 5 }, 20, last)).toEqual({ from: 12, to: 17 });
  });
});
