/** A table with a row per layer: sorted by a press on a head, filtered, and drawn only as far as it is in sight. */

import type { Signal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useMemo, useState } from "preact/hooks";
import type { Layer } from "../api/types";
import { elide, formatCount, NOT_AVAILABLE } from "../model/format";
import { filterRows } from "../model/layers";
import { pressed, type Sorting } from "../model/sorting";
import { chooseLayer } from "../model/store";
import { listWindow } from "../model/viewport";
import { useSize, useViewer } from "./viewer";

const ROW_HEIGHT = 26;
const MOST_NAME = 40;

export interface GridRow {
  readonly index: number;
  readonly layer: Layer;
  /** NaN and Inf in what the row shows. */
  readonly nonfinite?: number;
}

export interface GridColumn<Row, Key extends string> {
  readonly title: string;
  readonly hint: string;
  /** Null where the table cannot be sorted by it. */
  readonly sort: Key | null;
  /** Words rather than figures: to the left, and sorted from A on. */
  readonly isText?: boolean;
  readonly cell: (row: Row) => ComponentChildren;
}

/** What every table can be sorted by. */
type Always = "name" | "order";

export interface LayerGridProps<Row, Key extends string> {
  readonly title: string;
  /** All of them, in execution order. */
  readonly rows: readonly Row[];
  /** Those after the layer's name. */
  readonly columns: readonly GridColumn<Row, Key | Always>[];
  readonly sorting: Signal<Sorting<Key | Always>>;
  readonly sort: (rows: readonly Row[], sorting: Sorting<Key | Always>) => readonly Row[];
}

export function LayerGrid<Row extends GridRow, Key extends string>(props: LayerGridProps<Row, Key>) {
  const { store } = useViewer();
  const { ref, height } = useSize<HTMLDivElement>();
  const [scrolled, setScrolled] = useState(0);
  const filter = store.filter.value;
  const sorting = props.sorting.value;
  const { rows: all, sort } = props;
  const rows = useMemo(() => sort(filterRows(all, filter), sorting), [all, filter, sort, sorting]);
  const { first, end } = listWindow(rows.length, ROW_HEIGHT, scrolled, height);
  const isOrdered = sorting.key === "order";
  const name = { title: "layer", hint: "the name in your model", sort: "name" as const, isText: true };
  const columns = [{ ...name, cell: (row: Row) => <Name row={row} /> }, ...props.columns];
  return (
    <section class="panel layers">
      <div class="panel-head">
        <h2>{props.title}</h2>
        <div class="choices">
          {filter !== "" && (
            <span class="dim">
              {formatCount(rows.length)} of {formatCount(all.length)}
            </span>
          )}
          {isOrdered ? (
            <span class="dim">execution order</span>
          ) : (
            <button
              type="button"
              class="link"
              onClick={() => {
                props.sorting.value = { key: "order", descending: false };
              }}
            >
              execution order
            </button>
          )}
          <label class="filter">
            <input
              id="layer-filter"
              type="search"
              placeholder="filter"
              aria-label="Filter layers by name or type"
              value={filter}
              onInput={(event) => {
                store.filter.value = event.currentTarget.value;
              }}
            />
            <kbd>/</kbd>
          </label>
        </div>
      </div>
      <div class="table-scroll" ref={ref} onScroll={(event) => setScrolled(event.currentTarget.scrollTop)}>
        <table class="layer-table" aria-rowcount={rows.length + 1}>
          <thead>
            <tr>
              {columns.map((column) => (
                <Heading key={column.title} column={column} sorting={props.sorting} />
              ))}
            </tr>
          </thead>
          <tbody>
            {first > 0 && <tr style={{ height: `${first * ROW_HEIGHT}px` }} />}
            {rows.slice(first, end).map((row) => {
              const selected = row.index === store.layer.value;
              return (
                <tr
                  key={row.index}
                  class={`${selected ? "selected" : ""} ${row.nonfinite ? "bad" : ""}`}
                  aria-current={selected ? "true" : undefined}
                  onClick={() => chooseLayer(store, row.index)}
                >
                  {columns.map((column) => (
                    <td key={column.title} class={column.isText ? "text" : "number"}>
                      {column.cell(row)}
                    </td>
                  ))}
                </tr>
              );
            })}
            {end < rows.length && <tr style={{ height: `${(rows.length - end) * ROW_HEIGHT}px` }} />}
          </tbody>
        </table>
        {rows.length === 0 && (
          <p class="dim pad">{filter ? `No layer fits "${filter}".` : "No layers are known yet."}</p>
        )}
      </div>
    </section>
  );
}

function Name({ row: { layer } }: { row: GridRow }) {
  const canonical = layer.own_name && layer.own_name !== layer.name ? layer.name : null;
  return (
    <>
      <button type="button" class="plain name" title={canonical ? `${layer.own_name} (${canonical})` : layer.name}>
        {elide(layer.own_name || layer.name, MOST_NAME)}
      </button>
      {canonical && <small class="dim">{canonical}</small>}
    </>
  );
}

interface HeadingProps<Key extends string> {
  readonly column: {
    readonly title: string;
    readonly hint: string;
    readonly sort: Key | null;
    readonly isText?: boolean;
  };
  readonly sorting: Signal<Sorting<Key>>;
}

function Heading<Key extends string>({ column, sorting }: HeadingProps<Key>) {
  const { title, hint, sort: key, isText = false } = column;
  const now = sorting.value;
  const direction = now.key !== key ? "none" : now.descending ? "descending" : "ascending";
  const arrow = { none: "", ascending: " ↑", descending: " ↓" }[direction];
  return (
    <th scope="col" class={isText ? "text" : ""} aria-sort={key === null ? undefined : direction} title={hint}>
      {key === null ? (
        title
      ) : (
        <button
          type="button"
          class="plain"
          onClick={() => {
            sorting.value = pressed(now, key, isText);
          }}
        >
          {title}
          {arrow}
        </button>
      )}
    </th>
  );
}

export interface FigureProps {
  /** Null where it was not measured. */
  readonly value: number | null;
  readonly name: string;
  readonly format: (value: number) => string;
  readonly why: string;
}

/** A figure of a table, in full precision for machines; where there is none, n/a with the reason. */
export function Figure({ value, name, format, why }: FigureProps) {
  return (
    <span data-statistic={name} data-value={value ?? undefined}>
      {value === null ? <Absent why={why} /> : format(value)}
    </span>
  );
}

export function Absent({ why }: { why: string }) {
  return (
    <span class="dim" title={`n/a: ${why}`}>
      {NOT_AVAILABLE}
    </span>
  );
}
