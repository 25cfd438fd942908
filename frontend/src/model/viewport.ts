/** Where rows and steps lie on a picture, and what lies under a point of it. Lengths are CSS pixels. */

import type { Columns, StepRange } from "../api/types";

/** A picture of rows by steps: the plot begins at (left, top); `offset` is how far its rows are scrolled up. */
export interface Viewport {
  readonly width: number;
  readonly height: number;
  readonly left: number;
  readonly top: number;
  readonly rowHeight: number;
  readonly rows: number;
  readonly offset: number;
  /** The steps at the left and right edge of the plot. */
  readonly from: number;
  readonly to: number;
}

export interface Hit {
  readonly row: number;
  /** Null left of the plot, on the names of the rows, and where nothing was measured yet. */
  readonly column: number | null;
}

/** Rows are never lower than this: a name must be readable beside each. */
export const LEAST_ROW_HEIGHT = 14;
const MOST_ROW_HEIGHT = 26;

/** Returns how high rows are where `available` pixels are there for all of them. */
export function rowHeightFor(rows: number, available: number): number {
  const fitting = Math.floor(available / Math.max(1, rows));
  return Math.min(MOST_ROW_HEIGHT, Math.max(LEAST_ROW_HEIGHT, fitting));
}

/**
 * Returns the edges of the columns in steps: column c lies between edges c and c + 1, from its first step to that of
 * the column after it. The last column is as wide as the one before.
 */
export function columnEdges(columns: Columns): Float64Array {
  const count = columns.firstStep.length;
  const edges = new Float64Array(count + 1);
  edges.set(columns.firstStep);
  const last = columns.firstStep[count - 1] ?? 0;
  const width = count > 1 ? last - (columns.firstStep[count - 2] as number) : 1;
  edges[count] = Math.max(last + width, (columns.lastStep[count - 1] ?? 0) + 1);
  return edges;
}

export function xOfStep(view: Viewport, step: number): number {
  return view.left + ((step - view.from) / (view.to - view.from)) * (view.width - view.left);
}

export function stepOfX(view: Viewport, x: number): number {
  const share = (x - view.left) / (view.width - view.left);
  return view.from + Math.min(1, Math.max(0, share)) * (view.to - view.from);
}

export function yOfRow(view: Viewport, row: number): number {
  return view.top + row * view.rowHeight - view.offset;
}

/** Returns how far to scroll so that `row` is in sight: as little as that takes. */
export function offsetShowing(view: Viewport, row: number): number {
  const top = row * view.rowHeight;
  const bottom = top + view.rowHeight - (view.height - view.top);
  return Math.min(top, Math.max(bottom, view.offset));
}

/** Returns the rows that can be seen, in part or in whole: from `first` up to, not including, `end`. */
export function visibleRows(view: Viewport): { first: number; end: number } {
  const plotHeight = view.height - view.top;
  const first = Math.min(view.rows, Math.max(0, Math.floor(view.offset / view.rowHeight)));
  const end = Math.min(view.rows, Math.ceil((view.offset + plotHeight) / view.rowHeight));
  return { first, end: Math.max(first, end) };
}

/** Returns what lies under the point, or null beside the rows. */
export function hit(view: Viewport, edges: Float64Array, x: number, y: number): Hit | null {
  if (y < view.top || y >= view.height || x < 0 || x > view.width) return null;
  const row = Math.floor((y - view.top + view.offset) / view.rowHeight);
  if (row < 0 || row >= view.rows) return null;
  const column = x < view.left ? -1 : columnAt(edges, stepOfX(view, x));
  return { row, column: column < 0 ? null : column };
}

/** Returns the column whose steps hold `step`, or -1 where none does. */
export function columnAt(edges: Float64Array, step: number): number {
  if (edges.length < 2 || step < (edges[0] as number) || step > (edges[edges.length - 1] as number)) return -1;
  return Math.min(edges.length - 2, lastAtOrBelow(edges, step));
}

/** Returns the index of the last of the ascending `values` that is at most `wanted`, or -1. */
export function lastAtOrBelow(values: ArrayLike<number>, wanted: number): number {
  let low = 0;
  let high = values.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((values[middle] as number) <= wanted) low = middle + 1;
    else high = middle;
  }
  return low - 1;
}

/** Returns the steps between two points of a drag, or null where they are closer than a drag is. */
export function draggedRange(view: Viewport, fromX: number, toX: number): StepRange | null {
  const LEAST_DRAG = 6;
  if (Math.abs(toX - fromX) < LEAST_DRAG) return null;
  const first = Math.ceil(stepOfX(view, Math.min(fromX, toX)));
  const last = Math.floor(stepOfX(view, Math.max(fromX, toX)));
  return last > first ? { first, last } : null;
}

/** Returns `range` narrowed (factor below 1) or widened around `centre`, within `whole`; null for all of it. */
export function zoomed(range: StepRange, whole: StepRange, centre: number, factor: number): StepRange | null {
  const middle = Math.min(range.last, Math.max(range.first, centre));
  const first = Math.max(whole.first, Math.round(middle - (middle - range.first) * factor));
  const last = Math.min(whole.last, Math.round(middle + (range.last - middle) * factor));
  if (first <= whole.first && last >= whole.last) return null;
  return last > first ? { first, last } : range;
}

/** Returns which items of a long list to show: those in sight and a few beyond, so that scrolling shows no gap. */
export function listWindow(count: number, itemHeight: number, scrolled: number, height: number) {
  const BEYOND = 6;
  const first = Math.max(0, Math.floor(scrolled / itemHeight) - BEYOND);
  const end = Math.min(count, Math.ceil((scrolled + height) / itemHeight) + BEYOND);
  return { first: Math.min(first, end), end };
}

/** Room left of the plot for the longest of `labels`. */
export function labelWidth(labels: readonly string[]): number {
  const CHARACTER = 7;
  const longest = labels.reduce((most, label) => Math.max(most, label.length), 0);
  return Math.min(170, Math.max(56, longest * CHARACTER + 20));
}

/** The most characters of a label. */
export const MOST_LABEL = 21;

/** Returns how far along `value` lies between `low` and `high`, from 0 to 1. */
export function filledShare(low: number, high: number, value: number): number {
  return high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 1;
}

/** Returns the room for a picture in a view of `height` where `below` pixels are wanted by what stands below it. */
export function roomAbove(height: number, below: number): number {
  const LEAST_ROOM = 180;
  return Math.max(LEAST_ROOM, height - below);
}
