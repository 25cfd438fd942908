/** One statistic of all layers over the steps: the heat map with its legend, or the table behind it. */

import type { ComponentChildren } from "preact";
import { useMemo } from "preact/hooks";
import { fetchMatrix } from "../api/client";
import { type Matrix, NONFINITE, NOT_MEASURED } from "../api/types";
import { formatCount, formatPlural, NOT_AVAILABLE } from "../model/format";
import { layerLabel } from "../model/layers";
import {
  cellText,
  columnText,
  cursorPlace,
  formatAxis,
  formatStatistic,
  type Picture,
  pictureOf,
  rangeKey,
  styleOf,
  wholeRange,
} from "../model/picture";
import { chooseLayer, pinStep } from "../model/store";
import type { Hit } from "../model/viewport";
import { type Cell, CellTable } from "./CellTable";
import { HeatMap } from "./HeatMap";
import { Legend } from "./Legend";
import { Missing, Notice } from "./States";
import { useQuery, useSize, useViewer } from "./viewer";

/** A table with more columns than this is read by nobody, and slow to build. */
const TABLE_COLUMNS = 200;

export interface MatrixPanelProps {
  readonly title: string;
  readonly kind: string;
  readonly statistic: string;
  readonly byLayer: boolean;
  readonly room: number;
  /** The choice of what is shown. */
  readonly children: ComponentChildren;
}

export function MatrixPanel(props: MatrixPanelProps) {
  const { store } = useViewer();
  const { ref, width } = useSize<HTMLDivElement>();
  const { kind, statistic, byLayer } = props;
  const run = store.run.value;
  const zoom = store.zoom.value;
  const columns = store.asTable.value ? TABLE_COLUMNS : width;
  const recorded = (store.session.value?.kinds[kind]?.frames ?? 0) > 0;
  const { value, error } = useQuery<Matrix>(
    run !== null && recorded && width > 0 ? `${run} ${kind} ${statistic}` : null,
    `${columns} ${rangeKey(zoom)}`,
    (signal) => fetchMatrix({ run: run ?? "", kind, byLayer, statistic, width: columns, range: zoom }, signal),
  );
  const picture = useMemo(() => value && pictureOf(value, statistic), [value, statistic]);
  return (
    <section class="panel">
      <div class="panel-head">
        <h2>{props.title}</h2>
        <div class="choices">{props.children}</div>
      </div>
      {error !== null && <Notice sentence={error} />}
      <div ref={ref}>
        {picture === null ? (
          error === null && <Missing recorded={recorded} kind={kind} room={props.room} />
        ) : store.asTable.value ? (
          <MatrixTable picture={picture} room={props.room} title={props.title} />
        ) : (
          <MatrixMap picture={picture} room={props.room} title={props.title} />
        )}
      </div>
      {picture && <Caption picture={picture} />}
    </section>
  );
}

interface PictureProps {
  readonly picture: Picture;
  readonly room: number;
  readonly title: string;
}

function usePicture(picture: Picture) {
  const { store } = useViewer();
  const { rows, firstStep } = picture.matrix;
  const table = store.layers.value;
  const selected = rows.indexOf(store.layer.value);
  return {
    names: rows.map((row) => layerLabel(table, row)),
    selected: selected >= 0 ? selected : null,
    pick(row: number, column: number | null) {
      chooseLayer(store, rows[row] as number);
      if (column !== null) pinStep(store, firstStep[column] as number);
    },
  };
}

function MatrixMap({ picture, room, title }: PictureProps) {
  const { store } = useViewer();
  const { names, selected, pick } = usePicture(picture);
  const { matrix } = picture;
  const describe = ({ row, column }: Hit): string[] => {
    const layer = store.layers.value?.layers[matrix.rows[row] as number];
    const own = layer && layer.own_name !== layer.name ? [layer.own_name] : [];
    if (column === null) return [names[row] as string, ...own];
    return [
      names[row] as string,
      ...own,
      columnText(matrix, column),
      `${styleOf(picture.statistic).label} ${cellText(picture, row, column)}`,
    ];
  };
  const layers = `${formatCount(names.length)} layers`;
  return (
    <div class="with-legend">
      <HeatMap
        label={`${title}: heat map of ${layers} by ${formatCount(matrix.frames)} frames. Press t for the table.`}
        names={names}
        levels={picture.levels}
        columns={matrix.firstStep.length}
        edges={picture.edges}
        {...wholeRange(picture.edges)}
        flagged={picture.flagged}
        selected={selected}
        cursor={cursorPlace(picture.edges, store.frame.value?.step ?? null)}
        room={room}
        describe={describe}
        onPick={pick}
        onZoom={(range) => {
          store.zoom.value = range;
        }}
      />
      <Legend scale={picture.scale} format={(value) => formatAxis(picture.statistic, value)} />
    </div>
  );
}

function MatrixTable({ picture, room, title }: PictureProps) {
  const { names, selected, pick } = usePicture(picture);
  const { matrix, shown } = picture;
  const cell = (row: number, column: number): Cell => {
    const index = row * matrix.firstStep.length + column;
    const state = matrix.state[index];
    const finite = (values: Float32Array) => (Number.isNaN(values[index]) ? null : (values[index] as number));
    const value = state === NOT_MEASURED ? null : finite(shown);
    const text = value === null ? NOT_AVAILABLE : formatStatistic(picture.statistic, value);
    const nonfinite = state === NONFINITE;
    return {
      text: nonfinite ? `NaN/Inf, ${text}` : text,
      value,
      minimum: finite(matrix.minimum),
      maximum: finite(matrix.maximum),
      nonfinite,
    };
  };
  return (
    <CellTable label={title} names={names} columns={matrix} room={room} selected={selected} cell={cell} onPick={pick} />
  );
}

function Caption({ picture }: { picture: Picture }) {
  const { store } = useViewer();
  const bound = picture.statistic === "min" ? "smallest" : "largest";
  const zoom = store.zoom.value;
  const hint = store.asTable.value ? "" : "Drag to zoom, click to choose a layer and a step.";
  return (
    <p class="caption">
      {formatPlural(picture.matrix.rows.length, "layer")} in execution order.{" "}
      {picture.decimated ? `Each column holds several frames and shows their ${bound} value. ` : ""}
      {zoom ? (
        <button type="button" class="link" onClick={() => (store.zoom.value = null)}>
          Show all steps <kbd>Esc</kbd>
        </button>
      ) : (
        hint
      )}
    </p>
  );
}
