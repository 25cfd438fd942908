/** Times or sizes over the steps, as lines: of the chosen layer, or of the whole step. */

import { useMemo, useState } from "preact/hooks";
import { fetchProfileSeries } from "../api/client";
import type { ProfileKind, Series } from "../api/types";
import { rangeKey } from "../model/picture";
import { linesOf } from "../model/series";
import { Chart } from "./Chart";
import { SeriesTable } from "./SeriesTable";
import { Missing, Notice } from "./States";
import { useQuery, useSize, useViewer } from "./viewer";

/** A table with more rows than this is read by nobody, and slow to build. */
const TABLE_ROWS = 200;

export interface ProfileSeriesProps {
  readonly title: string;
  readonly kind: ProfileKind;
  /** The layer; null for whole traces. */
  readonly row: number | null;
  readonly columns: readonly string[];
  /** What is not there, where nothing is. */
  readonly what: string;
  readonly height: number;
}

export function ProfileSeries({ title, kind, row, columns, what, height }: ProfileSeriesProps) {
  const { store } = useViewer();
  const { ref, width } = useSize<HTMLDivElement>();
  const run = store.run.value;
  const zoom = store.zoom.value;
  const asTable = store.asTable.value;
  const wanted = asTable ? TABLE_ROWS : width;
  const recorded = kind in (store.session.value?.profiles ?? {});
  const { value, error } = useQuery<Series>(
    run !== null && recorded && width > 0 ? `${run} ${kind} ${row} ${columns}` : null,
    `${wanted} ${rangeKey(zoom)}`,
    (signal) => fetchProfileSeries({ run: run ?? "", kind, row, columns, width: wanted, range: zoom }, signal),
  );
  const lines = useMemo(() => value && linesOf(value, false), [value]);
  const [hovered, setHovered] = useState<number | null>(null);
  return (
    <section class="panel" aria-label={title}>
      {(asTable || value === null) && <h2>{title}</h2>}
      <div ref={ref}>
        {error !== null && <Notice sentence={error} />}
        {value === null || lines === null ? (
          error === null && <Missing recorded={recorded} kind={what} room={height} />
        ) : asTable ? (
          <SeriesTable series={value} label={title} room={height} />
        ) : (
          <Chart
            title={title}
            series={value}
            lines={lines}
            hovered={hovered}
            onHover={setHovered}
            log={false}
            group="profiles"
            height={height}
          />
        )}
      </div>
    </section>
  );
}
