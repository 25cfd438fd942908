/** Cells to pixels: fills an image from palette entries, row by row. */

import { EMPTY_LEVEL, NONFINITE_LEVEL, parseHex, type Rgb, rampPalette, UNMEASURED_LEVEL } from "../model/colour";
import type { Theme } from "../theme/theme";

/** What is filled: RGBA bytes, as in the ImageData of a canvas. */
export interface Pixels {
  readonly data: Uint8ClampedArray;
  readonly width: number;
  readonly height: number;
}

/** The cells (rows, columns) as palette entries, and where they go; positions in pixels of the image. */
export interface CellLayout {
  readonly levels: Uint8Array;
  readonly columns: number;
  /** Left edge of each column and right edge of the last: columns + 1 ascending positions, also beyond the image. */
  readonly edges: ArrayLike<number>;
  readonly firstRow: number;
  readonly endRow: number;
  /** Top of `firstRow`; may be negative. */
  readonly top: number;
  readonly rowHeight: number;
  /** Pixels of ground between rows. */
  readonly gap: number;
}

/** NaN and Inf are never narrower than this many pixels: one bad frame among thousands must be seen. */
const LEAST_NONFINITE_WIDTH = 3;
const HATCH_PERIOD = 8;
const HATCH_WIDTH = 2;

/** Fills `pixels`: the ground where there is no cell, hatching where nothing was measured. */
export function paintCells(pixels: Pixels, layout: CellLayout, theme: Theme): void {
  const colours = packedPalette(theme);
  const ground = packed(parseHex(theme.ground));
  const hatch = packed(parseHex(theme.hatch));
  const words = new Uint32Array(pixels.data.buffer, pixels.data.byteOffset, pixels.width * pixels.height).fill(ground);
  const columnOf = columnsOfPixels(layout, pixels.width);
  const line = new Uint32Array(pixels.width);
  for (let row = layout.firstRow; row < layout.endRow; row++) {
    const top = Math.round(layout.top + (row - layout.firstRow) * layout.rowHeight);
    const bottom = Math.round(layout.top + (row + 1 - layout.firstRow) * layout.rowHeight) - layout.gap;
    const cells = layout.levels.subarray(row * layout.columns, (row + 1) * layout.columns);
    const unmeasured = fillLine(line, cells, columnOf, colours, ground);
    widenNonfinite(line, cells, layout.edges, colours[NONFINITE_LEVEL] as number);
    for (let y = Math.max(0, top); y < Math.min(pixels.height, bottom); y++) {
      words.set(line, y * pixels.width);
      if (!unmeasured) continue;
      for (let x = 0; x < pixels.width; x++) {
        const column = columnOf[x] as number;
        const isHatch = (x + y) % HATCH_PERIOD < HATCH_WIDTH && line[x] === ground;
        if (isHatch && column >= 0 && cells[column] === UNMEASURED_LEVEL) words[y * pixels.width + x] = hatch;
      }
    }
  }
}

/** Colours one line of pixels; returns whether some cell of it was not measured. */
function fillLine(line: Uint32Array, cells: Uint8Array, columnOf: Int32Array, colours: Uint32Array, ground: number) {
  let unmeasured = false;
  for (let x = 0; x < line.length; x++) {
    const column = columnOf[x] as number;
    const level = column < 0 ? EMPTY_LEVEL : (cells[column] as number);
    if (level === UNMEASURED_LEVEL) unmeasured = true;
    line[x] = level === UNMEASURED_LEVEL || level === EMPTY_LEVEL ? ground : (colours[level] as number);
  }
  return unmeasured;
}

function widenNonfinite(line: Uint32Array, cells: Uint8Array, edges: ArrayLike<number>, colour: number): void {
  for (let column = 0; column < cells.length; column++) {
    if (cells[column] !== NONFINITE_LEVEL) continue;
    const left = edges[column] as number;
    const right = edges[column + 1] as number;
    const middle = Math.round((left + right) / 2);
    const half = Math.max(LEAST_NONFINITE_WIDTH, right - left) / 2;
    if (right < 0 || left > line.length) continue;
    line.fill(colour, Math.max(0, Math.round(middle - half)), Math.min(line.length, Math.round(middle + half)));
  }
}

/** Returns for each pixel the column at its centre, or -1. */
function columnsOfPixels({ edges, columns }: CellLayout, width: number): Int32Array {
  const result = new Int32Array(width).fill(-1);
  let column = 0;
  for (let x = 0; x < width; x++) {
    while (column < columns && (edges[column + 1] as number) <= x + 0.5) column++;
    if (column < columns && (edges[column] as number) <= x + 0.5) result[x] = column;
  }
  return result;
}

const palettes = new WeakMap<Theme, Uint32Array>();

function packedPalette(theme: Theme): Uint32Array {
  let palette = palettes.get(theme);
  if (palette === undefined) {
    palette = Uint32Array.from(rampPalette(theme.ramp), packed);
    palette[NONFINITE_LEVEL] = packed(parseHex(theme.nonfiniteCell));
    palettes.set(theme, palette);
  }
  return palette;
}

/** Returns an opaque colour as one word in the byte order of an image, on a little-endian machine. */
export function packed([red, green, blue]: Rgb): number {
  return ((255 << 24) | (blue << 16) | (green << 8) | red) >>> 0;
}
