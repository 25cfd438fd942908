import { describe, expect, it } from "vitest";
import {
  columnAt,
  columnEdges,
  draggedRange,
  filledShare,
  hit,
  labelWidth,
  lastAtOrBelow,
  listWindow,
  offsetShowing,
  roomAbove,
  rowHeightFor,
  stepOfX,
  type Viewport,
  visibleRows,
  xOfStep,
  yOfRow,
  zoomed,
} from "./viewport";

const EDGES = columnEdges({ firstStep: Float64Array.of(0, 10, 20, 40), lastStep: Float64Array.of(0, 10, 20, 40) });

const VIEW: Viewport = {
  width: 300,
  height: 100,
  left: 100,
  top: 0,
  rowHeight: 20,
  rows: 12,
  offset: 30,
  from: 0,
  to: 60,
};

describe("columns", () => {
  it("reach from their first step to that of the next one, the last as wide as the one before", () => {
    expect([...EDGES]).toEqual([0, 10, 20, 40, 60]);
  });

  it("have a width where there is only one, or none", () => {
    expect([...columnEdges({ firstStep: Float64Array.of(7), lastStep: Float64Array.of(7) })]).toEqual([7, 8]);
    expect([...columnEdges({ firstStep: Float64Array.of(7), lastStep: Float64Array.of(90) })]).toEqual([7, 91]);
    expect(columnEdges({ firstStep: new Float64Array(), lastStep: new Float64Array() })).toHaveLength(1);
  });

  it("are found by step", () => {
    expect([-1, 0, 9.9, 10, 39, 40, 60, 61].map((step) => columnAt(EDGES, step))).toEqual([-1, 0, 0, 1, 2, 3, 3, -1]);
    expect(columnAt(Float64Array.of(0), 0)).toBe(-1);
  });
});

describe("places", () => {
  it("of steps and points are each other's inverse", () => {
    expect(xOfStep(VIEW, 0)).toBe(100);
    expect(xOfStep(VIEW, 60)).toBe(300);
    expect(stepOfX(VIEW, xOfStep(VIEW, 33))).toBeCloseTo(33);
    expect(stepOfX(VIEW, 20)).toBe(0);
    expect(stepOfX(VIEW, 999)).toBe(60);
  });

  it("of rows follow the scrolling", () => {
    expect(yOfRow(VIEW, 1)).toBe(-10);
    expect(visibleRows(VIEW)).toEqual({ first: 1, end: 7 });
    expect(visibleRows({ ...VIEW, offset: 200 })).toEqual({ first: 10, end: 12 });
    expect(visibleRows({ ...VIEW, rows: 0, offset: 0 })).toEqual({ first: 0, end: 0 });
  });
});

it("scrolling to a row moves no further than it must", () => {
  expect(offsetShowing(VIEW, 3)).toBe(30);
  expect(offsetShowing(VIEW, 0)).toBe(0);
  expect(offsetShowing(VIEW, 1)).toBe(20);
  expect(offsetShowing(VIEW, 11)).toBe(140);
});

describe("hit", () => {
  it("finds row and column", () => {
    expect(hit(VIEW, EDGES, 101, 0)).toEqual({ row: 1, column: 0 });
    expect(hit(VIEW, EDGES, 200, 15)).toEqual({ row: 2, column: 2 });
    expect(hit(VIEW, EDGES, 300, 99)).toEqual({ row: 6, column: 3 });
  });

  it("finds the row alone on its name", () => {
    expect(hit(VIEW, EDGES, 50, 15)).toEqual({ row: 2, column: null });
  });

  it("finds nothing beside the rows", () => {
    expect(hit(VIEW, EDGES, 200, 100)).toBeNull();
    expect(hit({ ...VIEW, rows: 3, offset: 0 }, EDGES, 200, 61)).toBeNull();
    expect(hit(VIEW, EDGES, 301, 10)).toBeNull();
  });
});

describe("dragging and zooming", () => {
  it("a drag covers whole steps, in either direction; a click is none", () => {
    expect(draggedRange(VIEW, 130, 200)).toEqual({ first: 9, last: 30 });
    expect(draggedRange(VIEW, 200, 130)).toEqual({ first: 9, last: 30 });
    expect(draggedRange(VIEW, 130, 135)).toBeNull();
  });

  it("keeps its centre where it is, and ends at the whole", () => {
    const whole = { first: 0, last: 1000 };
    expect(zoomed(whole, whole, 400, 0.5)).toEqual({ first: 200, last: 700 });
    expect(zoomed({ first: 200, last: 700 }, whole, 400, 2)).toBeNull();
    expect(zoomed({ first: 900, last: 1000 }, whole, 950, 4)).toEqual({ first: 750, last: 1000 });
    expect(zoomed({ first: 5, last: 6 }, whole, 5, 0.5)).toEqual({ first: 5, last: 6 });
  });
});

describe("sizes", () => {
  it("rows share the room, but can always be read", () => {
    expect(rowHeightFor(12, 240)).toBe(20);
    expect(rowHeightFor(3, 240)).toBe(26);
    expect(rowHeightFor(1000, 240)).toBe(14);
    expect(rowHeightFor(0, 240)).toBe(26);
  });

  it("a long list shows what is in sight and a little more", () => {
    expect(listWindow(1000, 20, 400, 100)).toEqual({ first: 14, end: 31 });
    expect(listWindow(10, 20, 0, 1000)).toEqual({ first: 0, end: 10 });
    expect(listWindow(3, 20, 4000, 100)).toEqual({ first: 3, end: 3 });
  });

  it("labels, sliders and rooms stay within their limits", () => {
    expect(labelWidth(["a"])).toBe(56);
    expect(labelWidth(["Dense_10"])).toBe(76);
    expect(labelWidth(["x".repeat(90)])).toBe(170);
    expect(filledShare(0, 200, 50)).toBe(0.25);
    expect(filledShare(5, 5, 5)).toBe(1);
    expect(roomAbove(800, 300)).toBe(500);
    expect(roomAbove(300, 300)).toBe(180);
  });
});

it("lastAtOrBelow searches ascending values", () => {
  const values = [0, 10, 20];
  expect([-1, 0, 9, 10, 25].map((wanted) => lastAtOrBelow(values, wanted))).toEqual([-1, 0, 0, 1, 2]);
  expect(lastAtOrBelow([], 3)).toBe(-1);
});
