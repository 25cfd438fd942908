/** Statistics of the chosen layer over the steps: one chart of several lines, or several small charts. */

import { useMemo, useState } from "preact/hooks";
import { fetchSeries } from "../api/client";
import type { Series } from "../api/types";
import { lacksParameters, layerLabel } from "../model/layers";
import { columnText, rangeKey, styleOf } from "../model/picture";
import { linesOf, selectLines } from "../model/series";
import { Chart } from "./Chart";
import { SeriesTable } from "./SeriesTable";
import { Missing, Notice } from "./States";
import { useQuery, useSize, useViewer } from "./viewer";

/** A table with more rows than this is read by nobody, and slow to build. */
const TABLE_ROWS = 200;

export interface SeriesPanelProps {
  readonly kind: string;
  readonly byLayer: boolean;
  readonly statistics: readonly string[];
  /** One chart each, side by side, instead of one for all. */
  readonly apart: boolean;
  readonly height: number;
}

export function SeriesPanel({ kind, byLayer, statistics, apart, height }: SeriesPanelProps) {
  const { store } = useViewer();
  const { ref, width } = useSize<HTMLDivElement>();
  const row = store.layer.value;
  const run = store.run.value;
  const zoom = store.zoom.value;
  const asTable = store.asTable.value;
  const columns = asTable ? TABLE_ROWS : width;
  const recorded = (store.session.value?.kinds[kind]?.frames ?? 0) > 0;
  const lacking = byLayer && lacksParameters(store.layers.value, row);
  const { value, error } = useQuery<Series>(
    run !== null && recorded && !lacking && width > 0 ? `${run} ${kind} ${row}` : null,
    `${columns} ${rangeKey(zoom)}`,
    (signal) => fetchSeries({ run: run ?? "", kind, byLayer, row, statistics, width: columns, range: zoom }, signal),
  );
  const log = !apart;
  const lines = useMemo(() => value && linesOf(value, log), [value, log]);
  const parts = useMemo(() => lines && statistics.map((name) => selectLines(lines, [name])), [lines, statistics]);
  const [hovered, setHovered] = useState<number | null>(null);
  const title = `${layerLabel(store.layers.value, row)} over steps`;
  return (
    <section class="panel">
      {(apart || asTable) && (
        <div class="panel-head">
          <h2>{title}</h2>
          {value !== null && hovered !== null && <span class="dim number">{columnText(value, hovered)}</span>}
        </div>
      )}
      <div ref={ref}>
        {error !== null && <Notice sentence={error} />}
        {value === null || lines === null ? (
          error === null && <Missing recorded={recorded} kind={kind} room={height} lacking={lacking} />
        ) : asTable ? (
          <SeriesTable series={value} label={title} room={height} />
        ) : apart ? (
          <div class="multiples">
            {statistics.map((statistic, i) => (
              <Chart
                key={statistic}
                title={styleOf(statistic).label}
                series={value}
                lines={parts?.[i] ?? lines}
                hovered={hovered}
                onHover={setHovered}
                log={false}
                group={kind}
                height={height}
              />
            ))}
          </div>
        ) : (
          <Chart
            title={title}
            series={value}
            lines={lines}
            hovered={hovered}
            onHover={setHovered}
            log
            group={kind}
            height={height}
          />
        )}
      </div>
    </section>
  );
}
