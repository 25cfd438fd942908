/** A line chart as a component: holds uPlot, gives it new data, or makes it anew where its settings change. */

import { useEffect, useRef } from "preact/hooks";
import type uPlot from "uplot";
import type { Series } from "../api/types";
import { type ChartMarks, chartData, createChart, formatDecade } from "../draw/lines";
import { columnText, formatAxis, styleOf } from "../model/picture";
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
  const cursor = store.frame.value?.step ?? null;
  const style = theme.value;

  useEffect(() => {
    if (ref.current === null || width === 0) return;
    const settings = {
      width,
      height,
      scale: log ? ("log" as const) : styleOf(names).scale === "share" ? ("share" as const) : ("linear" as const),
      group,
      theme: style,
      format: log ? formatDecade : (value: number) => formatAxis(names, value),
      onHover,
      onPick: (step: number) => pinStep(store, step),
    };
    const created = createChart(ref.current, lines, settings, marks.current);
    chart.current = created;
    return () => {
      chart.current = null;
      created.destroy();
    };
  }, [width, height, log, group, style, names]);
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
