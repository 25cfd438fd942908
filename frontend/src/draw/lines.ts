/** Lines over the steps, drawn by uPlot. */

import uPlot from "uplot";
import { formatCount } from "../model/format";
import type { StatisticStyle } from "../model/picture";
import { axisRange, type Lines } from "../model/series";
import type { Theme } from "../theme/theme";
import { FONT } from "./surface";

export interface ChartSettings {
  readonly width: number;
  readonly height: number;
  readonly scale: StatisticStyle["scale"];
  readonly unit: StatisticStyle["unit"];
  /** Charts of one name show the pointer at the same step. */
  readonly group: string;
  readonly theme: Theme;
  /** How values are written at the axis. */
  readonly format: (values: readonly number[]) => string[];
  /** Tells the column under the pointer, or null. */
  readonly onHover: (column: number | null) => void;
  readonly onPick: (step: number) => void;
}

/** What changes while a chart stays: the step that all views show, and where NaN and Inf were. */
export interface ChartMarks {
  cursor: number | null;
  nonfinite: readonly number[];
}

/** Puts a chart into `element`; `marks` is read whenever the chart draws itself. */
export function createChart(element: HTMLElement, lines: Lines, settings: ChartSettings, marks: ChartMarks): uPlot {
  const chart = new uPlot(options(lines, settings, marks), chartData(lines), element);
  chart.over.addEventListener("click", () => {
    const column = chart.cursor.idx;
    const step = typeof column === "number" ? chart.data[0][column] : undefined;
    if (step !== undefined) settings.onPick(step);
  });
  return chart;
}

/** Returns steps, then per line its upper and lower values. */
export function chartData(lines: Lines): uPlot.AlignedData {
  return [[...lines.steps], ...lines.lines.flatMap((line) => [[...line.high], [...line.low]])];
}

function options(lines: Lines, settings: ChartSettings, marks: ChartMarks): uPlot.Options {
  const { theme } = settings;
  const log = settings.scale === "log";
  const grid = { stroke: theme.line, width: 1 };
  const axis = { font: FONT, stroke: theme.dim, grid, ticks: { ...grid, size: 4 } };
  return {
    width: settings.width,
    height: settings.height,
    legend: { show: false },
    padding: [8, 24, 0, 0],
    cursor: {
      y: false,
      sync: { key: settings.group },
      drag: { x: false, y: false },
      points: { size: 6, fill: (_, series) => lineColour(theme, series) },
    },
    scales: {
      x: { time: false },
      y: { distr: log ? 3 : 1, range: (_, low, high) => axisRange(low, high, settings.scale) },
    },
    axes: [
      {
        ...axis,
        grid: { show: false },
        size: 26,
        space: (_, __, ___, last) => stepSpace(last),
        values: (_, ticks) => ticks.map((tick) => wholeStep(tick)),
      },
      {
        ...axis,
        ...(log
          ? {
              filter: onlyDecades,
              grid: { ...grid, filter: onlyDecades },
              ticks: { ...axis.ticks, filter: onlyDecades },
            }
          : {}),
        ...(settings.unit === "bytes" ? { incrs: POWERS_OF_TWO } : {}),
        size: (_, texts) => axisWidth(texts),
        values: (_, ticks) => formatted(ticks, settings.format),
      },
    ],
    series: [
      {},
      ...lines.lines.flatMap((_, i): uPlot.Series[] => [
        { stroke: lineColour(theme, 2 * i + 1), width: i === 0 ? 2 : 1.25, points: { size: 3 } },
        { stroke: "transparent", points: { show: false } },
      ]),
    ],
    bands: lines.lines.map((_, i) => ({
      series: [2 * i + 1, 2 * i + 2] as [number, number],
      fill: `${lineColour(theme, 2 * i + 1)}44`,
    })),
    hooks: {
      draw: [(chart) => drawMarks(chart, marks, theme)],
      setCursor: [(chart) => settings.onHover(chart.cursor.idx ?? null)],
    },
  };
}

/** Returns the texts of ticks, of which those left out are null. */
function formatted(ticks: ReadonlyArray<number | null>, format: ChartSettings["format"]): string[] {
  const texts = format(ticks.filter((tick) => tick !== null));
  let next = 0;
  return ticks.map((tick) => (tick === null ? "" : (texts[next++] ?? "")));
}

/** Sizes are round in units of 1024. */
const POWERS_OF_TWO = Array.from({ length: 50 }, (_, exponent) => 2 ** exponent);

function lineColour(theme: Theme, series: number): string {
  return theme.lines[Math.floor((series - 1) / 2) % theme.lines.length] as string;
}

/** Returns how far apart ticks must stand for names as long as that of the last step. */
function stepSpace(last: number): number {
  const CHARACTER = 7;
  return Math.max(50, formatCount(last).length * CHARACTER + 14);
}

/** Returns the room for the values at an axis, whose texts are not known yet when first asked for. */
function axisWidth(texts: readonly string[] | null): number {
  const CHARACTER = 7;
  const longest = (texts ?? []).reduce((most, text) => Math.max(most, text.length), 0);
  return Math.max(56, longest * CHARACTER + 14);
}

function wholeStep(tick: number): string {
  return Number.isInteger(tick) ? formatCount(tick) : "";
}

function drawMarks(chart: uPlot, marks: ChartMarks, theme: Theme): void {
  const { left, top, width, height } = chart.bbox;
  const stroke = (step: number, colour: string, thickness: number) => {
    const x = chart.valToPos(step, "x", true);
    if (x < left || x > left + width) return;
    chart.ctx.fillStyle = colour;
    chart.ctx.fillRect(Math.round(x - thickness / 2), top, thickness, height);
  };
  const pixel = Math.max(1, Math.round(uPlot.pxRatio));
  chart.ctx.save();
  chart.ctx.globalAlpha = 0.75;
  for (const step of marks.nonfinite) stroke(step, theme.nonfiniteCell, 2 * pixel);
  chart.ctx.restore();
  if (marks.cursor !== null) stroke(marks.cursor, theme.text, pixel);
}

/** Returns the ticks that are powers of ten; others would crowd a log axis. */
function onlyDecades(_: uPlot, ticks: number[]): Array<number | null> {
  return ticks.map((tick) => (isDecade(tick) ? tick : null));
}

function isDecade(value: number): boolean {
  const exponent = Math.log10(value);
  return Math.abs(exponent - Math.round(exponent)) < 1e-6;
}

/** Returns powers of ten: 1e-5. */
export function formatDecades(values: readonly number[]): string[] {
  return values.map((value) => value.toExponential(0).replace("e+", "e"));
}
