/** The heat map: cells, names of rows, axis of steps, the cursor and what is being dragged. */

import { formatCount } from "../model/format";
import { type Viewport, visibleRows, xOfStep, yOfRow } from "../model/viewport";
import type { Theme } from "../theme/theme";
import { paintCells } from "./cells";
import type { Surface } from "./surface";

export interface HeatMapPicture {
  readonly levels: Uint8Array;
  readonly columns: number;
  /** In steps, columns + 1 of them. */
  readonly edges: Float64Array;
  /** Shortened to fit; empty where a row has no name of its own. */
  readonly labels: readonly string[];
  /** Rows whose name is drawn as a warning: they hold NaN or Inf. */
  readonly flagged: ReadonlySet<number>;
  readonly selected: number | null;
  readonly cursor: number | null;
  readonly ticks: readonly number[];
  /** From and to of a drag, in steps. */
  readonly drag: readonly [number, number] | null;
}

/** Height of the axis of steps below the plot. */
export const AXIS_HEIGHT = 24;
const LABEL_GAP = 8;

/** Draws onto a surface whose height is that of the viewport and the axis. */
export function drawHeatMap(surface: Surface, view: Viewport, picture: HeatMapPicture, theme: Theme): void {
  drawCells(surface, view, picture, theme);
  drawLabels(surface, view, picture, theme);
  drawAxis(surface, view, picture, theme);
  drawCursor(surface, view, picture, theme);
}

function drawCells({ context, ratio }: Surface, view: Viewport, picture: HeatMapPicture, theme: Theme): void {
  const width = Math.round((view.width - view.left) * ratio);
  const height = Math.round((view.height - view.top) * ratio);
  if (width <= 0 || height <= 0) return;
  const image = context.createImageData(width, height);
  const { first, end } = visibleRows(view);
  const layout = {
    levels: picture.levels,
    columns: picture.columns,
    edges: picture.edges.map((step) => (xOfStep(view, step) - view.left) * ratio),
    firstRow: first,
    endRow: end,
    top: (yOfRow(view, first) - view.top) * ratio,
    rowHeight: view.rowHeight * ratio,
    gap: view.rowHeight >= 8 ? Math.round(ratio) : 0,
  };
  paintCells(image, layout, theme);
  context.putImageData(image, Math.round(view.left * ratio), Math.round(view.top * ratio));
}

function drawLabels({ context }: Surface, view: Viewport, picture: HeatMapPicture, theme: Theme): void {
  const { first, end } = visibleRows(view);
  context.save();
  context.beginPath();
  context.rect(0, view.top, view.width, view.height - view.top);
  context.clip();
  context.textAlign = "right";
  context.textBaseline = "middle";
  for (let row = first; row < end; row++) {
    const middle = yOfRow(view, row) + view.rowHeight / 2;
    if (row === picture.selected) {
      context.fillStyle = theme.hover;
      context.fillRect(0, yOfRow(view, row), view.left - 2, view.rowHeight);
      context.fillStyle = theme.accent;
      context.fillRect(0, yOfRow(view, row), 3, view.rowHeight);
    }
    context.fillStyle = picture.flagged.has(row) ? theme.nonfinite : row === picture.selected ? theme.text : theme.dim;
    context.fillText(picture.labels[row] ?? "", view.left - LABEL_GAP, middle);
  }
  context.restore();
}

function drawAxis({ context }: Surface, view: Viewport, picture: HeatMapPicture, theme: Theme): void {
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  context.strokeStyle = theme.line;
  context.fillStyle = theme.dim;
  for (const tick of picture.ticks) {
    const x = Math.round(xOfStep(view, tick)) + 0.5;
    context.beginPath();
    context.moveTo(x, view.height);
    context.lineTo(x, view.height + 4);
    context.stroke();
    const text = formatCount(tick);
    const half = context.measureText(text).width / 2;
    context.fillText(text, Math.min(view.width - half, Math.max(view.left + half, x)), view.height + 17);
  }
}

function drawCursor({ context }: Surface, view: Viewport, picture: HeatMapPicture, theme: Theme): void {
  if (picture.drag) {
    const [from, to] = [xOfStep(view, Math.min(...picture.drag)), xOfStep(view, Math.max(...picture.drag))];
    context.globalAlpha = 0.25;
    context.fillStyle = theme.info;
    context.fillRect(from, view.top, to - from, view.height - view.top);
    context.globalAlpha = 1;
  }
  if (picture.cursor === null || picture.cursor < view.from || picture.cursor > view.to) return;
  // Two strokes: a line of the text's colour alone would be lost on cells of the same lightness.
  const x = Math.round(xOfStep(view, picture.cursor)) + 0.5;
  for (const [width, colour] of [
    [3, theme.ground],
    [1, theme.text],
  ] as const) {
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.beginPath();
    context.moveTo(x, view.top);
    context.lineTo(x, view.height + 3);
    context.stroke();
  }
  context.lineWidth = 1;
}
