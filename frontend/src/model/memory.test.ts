import { describe, expect, it } from "vitest";
import { memoryAxis, memoryCurve, peakText, readingAt } from "./memory";
import { type Trace, traceOf } from "./trace";

const NAN = Number.NaN;
const COLUMNS = ["layer", "phase", "start", "duration", "allocated", "reserved", "process"];
const MIB = 2 ** 20;

function trace(...rows: number[][]): Trace {
  return traceOf({ step: 1, firstStep: 0, columns: COLUMNS, values: Float64Array.from(rows.flat()) }) as Trace;
}

const ON_DEVICE = trace(
  [-1, 0, 0, 4, 3 * MIB, 8 * MIB, 900 * MIB],
  [0, 0, 0, 2, MIB, 8 * MIB, 900 * MIB],
  [1, 0, 2, 2, 3 * MIB, 8 * MIB, 900 * MIB],
  [1, 1, 4, 1, 2 * MIB, NAN, 900 * MIB],
);
const ON_CPU = trace([0, 0, 0, 1, NAN, NAN, 800 * MIB], [0, 1, 1, 1, NAN, NAN, 816 * MIB]);

describe("memoryCurve", () => {
  it("shows what the allocator counts where there is one", () => {
    const curve = memoryCurve(ON_DEVICE);
    expect(curve?.counters).toEqual(["allocated", "reserved"]);
    expect(Array.from(curve?.ends ?? [])).toEqual([2, 4, 4, 5]);
    expect([curve?.low, curve?.high]).toEqual([MIB, 8 * MIB]);
  });

  it("marks the peak at a layer, where the whole model ends with it too", () => {
    const curve = memoryCurve(ON_DEVICE);
    expect(curve?.peak).toMatchObject({ layer: 1, phase: "forward", allocated: 3 * MIB });
    expect(curve && peakText(curve, null)).toBe("3\u202fMiB allocated at the end of layer 1 forward");
  });

  it("shows the process on a CPU, and nothing where nothing was read", () => {
    expect(memoryCurve(ON_CPU)?.counters).toEqual(["process"]);
    expect(memoryCurve(trace([0, 0, 0, 1, NAN, NAN, NAN]))).toBeNull();
    expect(memoryCurve(null)).toBeNull();
  });

  it("tells the reading that holds at a time", () => {
    const curve = memoryCurve(ON_CPU);
    expect(curve && [0.2, 1, 1.9, 2, 9].map((time) => readingAt(curve, time).process / MIB)).toEqual([
      800, 800, 800, 816, 816,
    ]);
  });
});

describe("memoryAxis", () => {
  it("begins at zero for an allocator, and near what occurs for a process", () => {
    const [device, cpu] = [memoryCurve(ON_DEVICE), memoryCurve(ON_CPU)];
    const axis = device && memoryAxis(device);
    expect(axis?.low).toBe(0);
    expect(axis?.ticks.map((tick) => tick / MIB)).toEqual([0, 4, 8]);
    const { low, high } = (cpu && memoryAxis(cpu)) ?? { low: 0, high: 0 };
    expect(low / MIB).toBeGreaterThan(790);
    expect(low / MIB).toBeLessThan(800);
    expect(high / MIB).toBeGreaterThan(816);
  });
});
