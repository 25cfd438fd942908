import { describe, expect, it } from "vitest";
import {
  EMPTY_LEVEL,
  FIRST_LEVEL,
  LEVELS,
  NONFINITE_LEVEL,
  parseHex,
  rampColour,
  UNMEASURED_LEVEL,
} from "../model/colour";
import { DARK, LIGHT } from "../theme/theme";
import { type CellLayout, packed, paintCells } from "./cells";

const HIGH = LEVELS - 1;

function painted(width: number, height: number, layout: Partial<CellLayout> & { levels: Uint8Array }, theme = LIGHT) {
  const data = new Uint8ClampedArray(width * height * 4);
  const rows = layout.levels.length / (layout.columns ?? 1);
  paintCells(
    { data, width, height },
    { columns: 1, edges: [0, width], firstRow: 0, endRow: rows, top: 0, rowHeight: height / rows, gap: 0, ...layout },
    theme,
  );
  const words = new Uint32Array(data.buffer);
  return { data, at: (x: number, y: number) => words[y * width + x] };
}

const GROUND = packed(parseHex(LIGHT.ground));
const HATCH = packed(parseHex(LIGHT.hatch));
const NONFINITE = packed(parseHex(LIGHT.nonfiniteCell));
const LOW_COLOUR = packed(rampColour(LIGHT.ramp, 0));
const HIGH_COLOUR = packed(rampColour(LIGHT.ramp, 1));

describe("paintCells", () => {
  it("fills each cell from edge to edge, in bytes of red, green, blue, opaque", () => {
    const { at, data } = painted(8, 4, {
      levels: Uint8Array.of(FIRST_LEVEL, HIGH, HIGH, FIRST_LEVEL),
      columns: 2,
      edges: [0, 3, 8],
    });
    expect([at(0, 0), at(2, 1), at(3, 0), at(7, 1)]).toEqual([LOW_COLOUR, LOW_COLOUR, HIGH_COLOUR, HIGH_COLOUR]);
    expect([at(0, 2), at(3, 3)]).toEqual([HIGH_COLOUR, LOW_COLOUR]);
    expect([...data.subarray(0, 4)]).toEqual([...rampColour(LIGHT.ramp, 0), 255]);
  });

  it("leaves the ground between rows, in empty cells and beside the columns", () => {
    const { at } = painted(10, 8, {
      levels: Uint8Array.of(HIGH, EMPTY_LEVEL),
      edges: [2, 6],
      gap: 1,
    });
    expect([at(1, 0), at(2, 0), at(5, 2), at(6, 0)]).toEqual([GROUND, HIGH_COLOUR, HIGH_COLOUR, GROUND]);
    expect(at(3, 3)).toBe(GROUND);
    expect(at(3, 5)).toBe(GROUND);
  });

  it("hatches what was not measured, and nothing else", () => {
    const { at } = painted(16, 16, {
      levels: Uint8Array.of(UNMEASURED_LEVEL, EMPTY_LEVEL),
      columns: 2,
      edges: [0, 8, 16],
    });
    const colours = (from: number) => new Set(Array.from({ length: 128 }, (_, i) => at(from + (i % 8), i >> 3)));
    expect(colours(0)).toEqual(new Set([GROUND, HATCH]));
    expect(colours(8)).toEqual(new Set([GROUND]));
  });

  it("shows NaN and Inf at least three pixels wide, over their neighbours", () => {
    const columns = 100;
    const levels = new Uint8Array(columns).fill(HIGH);
    levels[50] = NONFINITE_LEVEL;
    const { at } = painted(columns, 1, { levels, columns, edges: Array.from({ length: 101 }, (_, i) => i) });
    const bad = Array.from({ length: columns }, (_, x) => x).filter((x) => at(x, 0) === NONFINITE);
    expect(bad).toHaveLength(3);
    expect(bad).toContain(50);
  });

  it("shows NaN and Inf also where many columns share one pixel", () => {
    const columns = 1000;
    const levels = new Uint8Array(columns).fill(HIGH);
    levels[503] = NONFINITE_LEVEL;
    const { at } = painted(100, 1, { levels, columns, edges: Array.from({ length: 1001 }, (_, i) => i / 10) });
    expect(at(50, 0)).toBe(NONFINITE);
  });

  it("draws rows that begin above the image, and stops at its end", () => {
    const { at } = painted(2, 4, { levels: Uint8Array.of(FIRST_LEVEL, HIGH), top: -3, rowHeight: 4 });
    expect([at(0, 0), at(0, 1), at(0, 3)]).toEqual([LOW_COLOUR, HIGH_COLOUR, HIGH_COLOUR]);
  });

  it("takes its colours from the theme that is passed", () => {
    const { at } = painted(1, 1, { levels: Uint8Array.of(HIGH) }, DARK);
    expect(at(0, 0)).toBe(packed(rampColour(DARK.ramp, 1)));
  });
});
