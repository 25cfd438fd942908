/** Signed log2 histograms: what their bins stand for, what can be read off them, and how they are laid out. */

import type { Histograms } from "../api/types";
import { EMPTY_LEVEL, level, NONFINITE_LEVEL, position, type Scale } from "./colour";
import { formatCount, formatPowerOfTwo, formatShare } from "./format";

const NEGATIVE_INFINITY = 0;
const ZERO = 256;
const POSITIVE_INFINITY = 512;
const NOT_A_NUMBER = 513;

/** The smallest normal number of fp16 is 2^-14, its smallest number above zero 2^-24 (IEEE 754 binary16). */
export const FP16_LEAST_NORMAL = -14;
export const FP16_LEAST = -24;

export type Sign = -1 | 0 | 1;

/** Returns the sign and exponent of a finite bin (2^e <= |x| < 2^(e+1)), or null for -Inf, +Inf and NaN. */
export function binMeaning(bin: number): { sign: Sign; exponent: number } | null {
  if (bin === NEGATIVE_INFINITY || bin === POSITIVE_INFINITY || bin === NOT_A_NUMBER) return null;
  if (bin === ZERO) return { sign: 0, exponent: Number.NEGATIVE_INFINITY };
  return bin < ZERO ? { sign: -1, exponent: 128 - bin } : { sign: 1, exponent: bin - 384 };
}

export interface Bar {
  readonly exponent: number;
  readonly negative: number;
  readonly positive: number;
}

/** One histogram, as counts of values. */
export interface Distribution {
  /** One per exponent from the smallest to the largest that occurs, those between included. */
  readonly bars: readonly Bar[];
  readonly zeros: number;
  readonly nonfinite: number;
  /** The sum of all bars, zeros and non-finite ones; how many values were counted, and how many the tensor had. */
  readonly weight: number;
  readonly counted: number;
  readonly total: number;
  /** Shares of the values that are neither zero nor non-finite; null where there are none. */
  readonly belowNormal: number | null;
  readonly belowLeast: number | null;
}

/** Returns column `column` of `histograms` as one distribution. */
export function distributionOf(histograms: Histograms, column: number): Distribution {
  const negative = new Map<number, number>();
  const positive = new Map<number, number>();
  let zeros = 0;
  let nonfinite = 0;
  let ordinary = 0;
  histograms.bins.forEach((bin, index) => {
    const count = histograms.counts[column * histograms.bins.length + index] as number;
    if (count === 0) return;
    const meaning = binMeaning(bin);
    if (meaning === null) nonfinite += count;
    else if (meaning.sign === 0) zeros += count;
    else {
      (meaning.sign < 0 ? negative : positive).set(meaning.exponent, count);
      ordinary += count;
    }
  });
  const exponents = [...negative.keys(), ...positive.keys()];
  const least = Math.min(...exponents);
  const bars = Array.from({ length: exponents.length ? Math.max(...exponents) - least + 1 : 0 }, (_, i) => ({
    exponent: least + i,
    negative: negative.get(least + i) ?? 0,
    positive: positive.get(least + i) ?? 0,
  }));
  const below = (exponent: number) =>
    ordinary === 0 ? null : sum(bars.filter((bar) => bar.exponent < exponent)) / ordinary;
  return {
    bars,
    zeros,
    nonfinite,
    weight: ordinary + zeros + nonfinite,
    counted: histograms.counted[column] ?? 0,
    total: histograms.total[column] ?? 0,
    belowNormal: below(FP16_LEAST_NORMAL),
    belowLeast: below(FP16_LEAST),
  };
}

/** Returns a part of a distribution in words: how many values were counted, or where that is an estimate, its share. */
export function formatPart(part: number, { weight, counted }: Distribution): string {
  return Math.round(weight) === counted ? formatCount(part) : formatShare(part / weight);
}

function sum(bars: readonly Bar[]): number {
  return bars.reduce((total, bar) => total + bar.negative + bar.positive, 0);
}

/** One row of the picture of a distribution over the steps; exponents at its lower end hold everything smaller. */
export interface BinRow {
  readonly sign: Sign;
  readonly exponent: number;
}

/** A distribution over the steps: shares are (rows, columns), of the values counted in a column. */
export interface DistributionGrid {
  readonly rows: readonly BinRow[];
  readonly shares: Float32Array;
  /** Per column the share of NaN and Inf. */
  readonly nonfinite: Float32Array;
}

/** The exponents that the picture shows below the largest: 2^-40 of the largest value is next to nothing. */
const MOST_EXPONENTS = 40;

/**
 * Lays out `histograms` symmetrically around zero: large positive values on top, then ever smaller ones, zero, and the
 * negative ones mirrored. The side of a sign that never occurs is left out.
 */
export function distributionGrid(histograms: Histograms): DistributionGrid {
  const columns = histograms.firstStep.length;
  const width = histograms.bins.length;
  const meanings = Array.from(histograms.bins, binMeaning);
  const occurs = new Uint8Array(width);
  for (let cell = 0; cell < histograms.counts.length; cell++) {
    if ((histograms.counts[cell] as number) > 0) occurs[cell % width] = 1;
  }
  const ordinary = meanings.filter((meaning, bin) => occurs[bin] && meaning !== null && meaning.sign !== 0);
  const largest = Math.max(...ordinary.map((meaning) => meaning?.exponent ?? 0));
  const least = Math.max(Math.min(...ordinary.map((meaning) => meaning?.exponent ?? 0)), largest - MOST_EXPONENTS);

  const side = (sign: Sign): BinRow[] =>
    ordinary.some((meaning) => meaning?.sign === sign)
      ? Array.from({ length: largest - least + 1 }, (_, i) => ({ sign, exponent: largest - i }))
      : [];
  const rows: BinRow[] = [...side(1), { sign: 0, exponent: Number.NEGATIVE_INFINITY }, ...side(-1).reverse()];
  const rowOf = new Map(rows.map((row, index) => [row.sign * 1000 + (row.sign === 0 ? 0 : row.exponent), index]));
  const places = meanings.map((meaning) => {
    if (meaning === null) return undefined;
    return rowOf.get(meaning.sign * 1000 + (meaning.sign === 0 ? 0 : Math.max(least, meaning.exponent)));
  });

  const shares = new Float32Array(rows.length * columns);
  const nonfinite = new Float32Array(columns);
  for (let column = 0; column < columns; column++) {
    const counts = histograms.counts.subarray(column * width, (column + 1) * width);
    const counted = counts.reduce((total, count) => total + count, 0) || 1;
    counts.forEach((count, bin) => {
      const row = places[bin];
      if (meanings[bin] === null) nonfinite[column] = (nonfinite[column] as number) + count / counted;
      else if (row !== undefined) {
        const cell = row * columns + column;
        shares[cell] = (shares[cell] as number) + count / counted;
      }
    });
  }
  return { rows, shares, nonfinite };
}

/** Returns what a row stands for: 0, or the signed power of two that its values begin with. */
export function binName({ sign, exponent }: BinRow): string {
  return sign === 0 ? "0" : `${sign < 0 ? "\u2212" : ""}${formatPowerOfTwo(exponent)}`;
}

/** Returns names for zero and every fourth power, none so close to zero's that they would overlap; else "". */
export function binLabels(rows: readonly BinRow[]): string[] {
  const zero = rows.findIndex(({ sign }) => sign === 0);
  return rows.map((row, index) =>
    index === zero || (row.exponent % 4 === 0 && Math.abs(index - zero) > 2) ? binName(row) : "",
  );
}

/** Shares from one in ten thousand to all of the values. */
export const SHARE_SCALE: Scale = { log: true, low: -4, high: 0 };

/** Returns palette entries: a first row that shows where NaN or Inf were counted, then the rows of the grid. */
export function distributionLevels(grid: DistributionGrid): Uint8Array {
  const columns = grid.nonfinite.length;
  const result = new Uint8Array(columns + grid.shares.length).fill(EMPTY_LEVEL);
  grid.nonfinite.forEach((share, column) => {
    if (share > 0) result[column] = NONFINITE_LEVEL;
  });
  grid.shares.forEach((share, cell) => {
    if (share > 0) result[columns + cell] = level(position(SHARE_SCALE, share));
  });
  return result;
}
