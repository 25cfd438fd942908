/** A line chart as a component: holds uPlot, gives it new data, or makes it anew where its settings change. */

import { useEffect, useRef } from "preact/hooks";
import type uPlot from "uplot";
import type { Series } from "../api/types";
import { type ChartMarks, chartData, createChart, formatDecades } from "../draw/lines";
import { columnText, formatAxes, type StatisticStyle, styleOf } from "../model/picture";
import { columnValueText, hasValues, type Lines } from "../model/series";
import { pinStep } from "../model/store";
import { useSize, useViewer } from "./viewer";

export interface ChartProps {
  readonly title: string;
  readonly series: Series;
  /** What of `series` is drawn. */
  readonly lines: Lines;
  /** The column under the pointer, here or in another chart of the group. */
  readonly hovered: number | null;
  readonly onHover: (column: number | null) => void;
  readonly log: boolean;
  readonly group: string;
  readonly height: number;
}

export function Chart({ title, series, lines, hovered, onHover, log, group, height }: ChartProps) {
  const { store, theme } = useViewer();
  const { ref, width } = useSize<HTMLDivElement>();
  const chart = useRef<uPlot | null>(null);
  const marks = useRef<ChartMarks>({ cursor: null, nonfinite: [] });
  const names = lines.lines.map((line) => line.statistic).join(",");
  // Lines of one chart are of one kind.
  const first = lines.lines[0]?.statistic ?? "";
  const style = styleOf(first);
  const cursor = store.frame.value?.step ?? null;
  const colours = theme.value;

  useEffect(() => {
    if (ref.current === null || width === 0) return;
    const settings = {
      width,
      height,
      scale: log ? ("log" as const) : unlogged(style.scale),
      unit: style.unit,
      group,
      theme: colours,
      format: log ? formatDecades : (values: readonly number[]) => formatAxes(first, values),
      onHover,
      onPick: (step: number) => pinStep(store, step),
    };
    const created = createChart(ref.current, lines, settings, marks.current);
    chart.current = created;
    return () => {
      chart.current = null;
      created.destroy();
    };
  }, [width, height, log, group, colours, names]);
  useEffect(() => {
    marks.current.nonfinite = lines.nonfinite;
    chart.current?.setData(chartData(lines));
  }, [lines]);
  useEffect(() => {
    marks.current.cursor = cursor;
    chart.current?.redraw(false);
  }, [cursor]);

  return (
    <figure class="chart">
      <figcaption>
        <span class="title">{title}</span>
        <Readout series={series} lines={lines} column={hovered} />
      </figcaption>
      <div ref={ref} style={{ height: `${height}px` }} role="img" aria-label={`${title}. Press t for the table.`} />
      {!hasValues(lines) && <p class="overlay dim">nothing to draw {log ? "on a logarithmic axis" : ""}</p>}
    </figure>
  );
}

/** Returns the scale of a statistic that is drawn on a linear axis, whatever suits a heat map of it. */
function unlogged(scale: StatisticStyle["scale"]): StatisticStyle["scale"] {
  return scale === "log" ? "linear" : scale;
}

/** The values under the pointer, and of several lines the steps too; without one, which line is which. */
function Readout({ series, lines, column }: { series: Series; lines: Lines; column: number | null }) {
  const { theme } = useViewer();
  const several = lines.lines.length > 1;
  if (column === null && !several) return null;
  return (
    <span class="readout">
      {column !== null && several && <span class="number">{columnText(series, column)}</span>}
      {lines.lines.map((line, i) => (
        <span key={line.statistic} title={styleOf(line.statistic).label}>
          {several && <i style={{ background: theme.value.lines[i % theme.value.lines.length] }} />}
          {several && column === null && styleOf(line.statistic).label}
          {column !== null && <b class="number"> {columnValueText(series, line.statistic, column)}</b>}
        </span>
      ))}
    </span>
  );
}
