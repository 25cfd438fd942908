/** Statistics of one row over the steps, as lines to draw and rows to read. */

import { NONFINITE, NOT_MEASURED, type Series } from "../api/types";
import { NOT_AVAILABLE } from "./format";
import { boundsText, type StatisticStyle } from "./picture";

/** One statistic: per column the smallest and largest value, null where there is none to draw. */
export interface Line {
  readonly statistic: string;
  readonly low: ReadonlyArray<number | null>;
  readonly high: ReadonlyArray<number | null>;
}

export interface Lines {
  /** The first step of each column. */
  readonly steps: readonly number[];
  readonly lines: readonly Line[];
  /** Steps at which the tensor held NaN or Inf. */
  readonly nonfinite: readonly number[];
}

/** Returns the lines of `series`; on a log axis what is not above zero cannot be drawn. */
export function linesOf(series: Series, log: boolean): Lines {
  const columns = series.firstStep.length;
  const drawable = (values: Float32Array, statistic: number) =>
    Array.from(values.subarray(statistic * columns, (statistic + 1) * columns), (value) =>
      Number.isNaN(value) || (log && value <= 0) ? null : value,
    );
  return {
    steps: Array.from(series.firstStep),
    lines: series.statistics.map((statistic, i) => ({
      statistic,
      low: drawable(series.minimum, i),
      high: drawable(series.maximum, i),
    })),
    nonfinite: Array.from(series.firstStep).filter((_, column) => series.state[column] === NONFINITE),
  };
}

/** Returns only `statistics` of `lines`. */
export function selectLines(lines: Lines, statistics: readonly string[]): Lines {
  return { ...lines, lines: lines.lines.filter((line) => statistics.includes(line.statistic)) };
}

/** Returns whether there is anything to draw. */
export function hasValues(lines: Lines): boolean {
  return lines.lines.some((line) => line.high.some((value) => value !== null));
}

/** Returns the words for one statistic of a column: its value, or both ends where the column holds several frames. */
export function columnValueText(series: Series, statistic: string, column: number): string {
  if (series.state[column] === NOT_MEASURED) return NOT_AVAILABLE;
  const cell = series.statistics.indexOf(statistic) * series.firstStep.length + column;
  return boundsText(statistic, series.minimum[cell] ?? Number.NaN, series.maximum[cell] ?? Number.NaN);
}

/**
 * Returns the range of a chart's axis: whole decades on a log axis, all shares, from zero for an amount, else a little
 * beyond what occurs.
 */
export function axisRange(low: number | null, high: number | null, scale: StatisticStyle["scale"]): [number, number] {
  if (scale === "share") return [0, 1];
  if (low === null || high === null) return scale === "log" ? [0.1, 1] : [0, 1];
  if (scale === "log") {
    const least = Math.floor(Math.log10(low));
    const most = Math.ceil(Math.log10(high));
    return [10 ** least, 10 ** Math.max(most, least + 1)];
  }
  if (scale === "amount") return [0, high > 0 ? high * 1.06 : 1];
  if (low === high) return low === 0 ? [-1, 1] : [low - Math.abs(low) * 0.5, high + Math.abs(high) * 0.5];
  const margin = (high - low) * 0.06;
  return [low < 0 || low - margin > 0 ? low - margin : low, high + margin];
}
