/** The distribution of the chosen layer's activations over the steps: signed powers of two by steps. */

import { useMemo } from "preact/hooks";
import { fetchHistograms } from "../api/client";
import type { Histograms } from "../api/types";
import {
  binLabels,
  binName,
  type DistributionGrid,
  distributionGrid,
  distributionLevels,
  SHARE_SCALE,
} from "../model/distribution";
import { formatShare } from "../model/format";
import { layerLabel } from "../model/layers";
import { columnText, cursorPlace, rangeKey, wholeRange } from "../model/picture";
import { pinStep } from "../model/store";
import { columnEdges } from "../model/viewport";
import { CellTable } from "./CellTable";
import { HeatMap } from "./HeatMap";
import { Legend } from "./Legend";
import { Missing, Notice } from "./States";
import { useQuery, useSize, useViewer } from "./viewer";

const TABLE_COLUMNS = 100;
/** Rows of bins need no name each, so they may be lower than those of layers. */
const ROW_HEIGHT = 6;

export function DistributionPanel({ kind, room }: { kind: string; room: number }) {
  const { store } = useViewer();
  const { ref, width } = useSize<HTMLDivElement>();
  const run = store.run.value;
  const row = store.layer.value;
  const zoom = store.zoom.value;
  const columns = store.asTable.value ? TABLE_COLUMNS : width;
  const recorded = (store.session.value?.kinds[kind]?.histograms ?? 0) > 0;
  const { value, error } = useQuery<Histograms>(
    run !== null && recorded && width > 0 ? `${run} ${kind} ${row}` : null,
    `${columns} ${rangeKey(zoom)}`,
    (signal) => fetchHistograms({ run: run ?? "", kind, byLayer: false, row, width: columns, range: zoom }, signal),
  );
  const grid = useMemo(() => value && distributionGrid(value), [value]);
  const title = `Distribution of ${layerLabel(store.layers.value, row)} over steps`;
  return (
    <section class="panel">
      <div class="panel-head">
        <h2>{title}</h2>
        <span class="dim">share of values per power of two</span>
      </div>
      {error !== null && <Notice sentence={error} />}
      <div ref={ref}>
        {value === null || grid === null || value.firstStep.length === 0 ? (
          error === null && <Missing recorded={recorded && value === null} kind={`histograms of ${kind}`} room={room} />
        ) : store.asTable.value ? (
          <DistributionTable histograms={value} grid={grid} title={title} room={room} />
        ) : (
          <DistributionMap histograms={value} grid={grid} title={title} room={room} />
        )}
      </div>
    </section>
  );
}

interface GridProps {
  readonly histograms: Histograms;
  readonly grid: DistributionGrid;
  readonly title: string;
  readonly room: number;
}

function DistributionMap({ histograms, grid, title, room }: GridProps) {
  const { store } = useViewer();
  const levels = useMemo(() => distributionLevels(grid), [grid]);
  const edges = useMemo(() => columnEdges(histograms), [histograms]);
  const columns = histograms.firstStep.length;
  const anyNonfinite = grid.nonfinite.some((share) => share > 0);
  const names = [anyNonfinite ? "NaN, Inf" : "", ...binLabels(grid.rows)];
  return (
    <div class="with-legend">
      <HeatMap
        label={`${title}. Press t for the table.`}
        names={names}
        levels={levels}
        columns={columns}
        edges={edges}
        {...wholeRange(edges)}
        flagged={anyNonfinite ? new Set([0]) : new Set()}
        selected={null}
        cursor={cursorPlace(edges, store.frame.value?.step ?? null)}
        room={room}
        rowHeight={ROW_HEIGHT}
        describe={({ row, column }) => {
          const bin = grid.rows[row - 1];
          const share = bin ? grid.shares[(row - 1) * columns + (column ?? 0)] : grid.nonfinite[column ?? 0];
          const name = bin ? (bin.sign === 0 ? "exactly 0" : `${binName(bin)} and up to twice that`) : "NaN or Inf";
          return column === null
            ? [name]
            : [columnText(histograms, column), name, `${formatShare(share)} of the values`];
        }}
        onPick={(_, column) => {
          if (column !== null) pinStep(store, histograms.lastStep[column] as number);
        }}
        onZoom={(range) => {
          store.zoom.value = range;
        }}
      />
      <Legend scale={SHARE_SCALE} format={formatShare} empty="no values" />
    </div>
  );
}

function DistributionTable({ histograms, grid, title, room }: GridProps) {
  const columns = histograms.firstStep.length;
  return (
    <CellTable
      label={title}
      names={["NaN or Inf", ...grid.rows.map(binName)]}
      columns={histograms}
      room={room}
      selected={null}
      cell={(row, column) => {
        const value = (row === 0 ? grid.nonfinite[column] : grid.shares[(row - 1) * columns + column]) ?? 0;
        return { text: formatShare(value), value, minimum: value, maximum: value, nonfinite: row === 0 && value > 0 };
      }}
      onPick={() => undefined}
    />
  );
}
