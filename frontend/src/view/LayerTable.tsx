/** The layers in execution order with what was measured of them at the step that is shown. */

import { useMemo, useRef, useState } from "preact/hooks";
import type { KindInfo, Layer } from "../api/types";
import { elide, formatCount, formatShape, formatValue, NOT_AVAILABLE } from "../model/format";
import { filterRows, type LayerRow, layerRows, type Sort, type SortKey, sortRows } from "../model/layers";
import { chooseLayer } from "../model/store";
import { listWindow } from "../model/viewport";
import { Shares, SharesKey } from "./Shares";
import { useSize, useViewer } from "./viewer";

const ROW_HEIGHT = 26;
const MOST_NAME = 40;

interface Column {
  readonly title: string;
  readonly hint: string;
  readonly sort: SortKey | null;
}

const COLUMNS: readonly Column[] = [
  { title: "layer", hint: "the name in your model", sort: "name" },
  { title: "type", hint: "the kind of layer", sort: "type" },
  { title: "output", hint: "shape of the output without the batch axis", sort: null },
  { title: "parameters", hint: "number of values that training changes or keeps", sort: "parameters" },
  { title: "mean", hint: "mean of the activations", sort: "mean" },
  { title: "std", hint: "standard deviation of the activations", sort: "std" },
  { title: "|grad|", hint: "rms of the gradient of the loss by the layer's parameters", sort: "gradientRms" },
  { title: "|upd|/|w|", hint: "norm of the update divided by the norm of the weights", sort: "updateRatio" },
  { title: "values", hint: "how the activations divide; sorts by the share of zeros", sort: "zero" },
];

export function LayerTable() {
  const { store } = useViewer();
  const { ref, height } = useSize<HTMLDivElement>();
  const input = useRef<HTMLInputElement>(null);
  const [scrolled, setScrolled] = useState(0);
  const table = store.layers.value;
  const frame = store.frame.value;
  const filter = store.filter.value;
  const sort = store.sort.value;
  const all = useMemo(() => (table ? layerRows(table, frame, outputText) : []), [table, frame]);
  const rows = useMemo(() => sortRows(filterRows(all, filter), sort), [all, filter, sort]);
  const { first, end } = listWindow(rows.length, ROW_HEIGHT, scrolled, height);
  const order = sort.key === "order" ? "execution order" : "";
  return (
    <section class="panel layers">
      <div class="panel-head">
        <h2>Layers{frame ? ` at step ${formatCount(frame.step)}` : ""}</h2>
        <div class="choices">
          <span class="dim">{filter ? `${formatCount(rows.length)} of ${formatCount(all.length)}` : order}</span>
          {order === "" && (
            <button type="button" class="link" onClick={() => (store.sort.value = { key: "order", descending: false })}>
              execution order
            </button>
          )}
          <label class="filter">
            <input
              ref={input}
              id="layer-filter"
              type="search"
              placeholder="filter"
              aria-label="Filter layers by name or type"
              value={filter}
              onInput={(event) => (store.filter.value = event.currentTarget.value)}
            />
            <kbd>/</kbd>
          </label>
        </div>
      </div>
      <div class="table-scroll" ref={ref} onScroll={(event) => setScrolled(event.currentTarget.scrollTop)}>
        <table class="layer-table" aria-rowcount={rows.length + 1}>
          <thead>
            <tr>
              {COLUMNS.map((column) => (
                <Heading key={column.title} column={column} sort={sort} onSort={(next) => (store.sort.value = next)} />
              ))}
            </tr>
          </thead>
          <tbody>
            {first > 0 && <tr style={{ height: `${first * ROW_HEIGHT}px` }} />}
            {rows.slice(first, end).map((row) => (
              <Row key={row.index} row={row} selected={row.index === store.layer.value} />
            ))}
            {end < rows.length && <tr style={{ height: `${(rows.length - end) * ROW_HEIGHT}px` }} />}
          </tbody>
        </table>
        {rows.length === 0 && (
          <p class="dim pad">{filter ? `No layer fits "${filter}".` : "No layers are known yet."}</p>
        )}
      </div>
      <SharesKey />
    </section>
  );
}

function outputText(layer: Layer): string {
  return layer.output_shapes.map(formatShape).join(", ");
}

function Heading({ column, sort, onSort }: { column: Column; sort: Sort; onSort: (sort: Sort) => void }) {
  const key = column.sort;
  const direction = sort.key !== key ? "none" : sort.descending ? "descending" : "ascending";
  const arrow = { none: "", ascending: " ↑", descending: " ↓" }[direction];
  if (key === null) {
    return (
      <th scope="col" title={column.hint}>
        {column.title}
      </th>
    );
  }
  return (
    <th scope="col" aria-sort={direction} title={column.hint}>
      <button
        type="button"
        class="plain"
        onClick={() =>
          onSort({ key, descending: sort.key === key ? !sort.descending : key !== "name" && key !== "type" })
        }
      >
        {column.title}
        {arrow}
      </button>
    </th>
  );
}

function Row({ row, selected }: { row: LayerRow; selected: boolean }) {
  const { store } = useViewer();
  const kinds = store.session.value?.kinds ?? {};
  const { layer } = row;
  const canonical = layer.own_name && layer.own_name !== layer.name ? layer.name : null;
  return (
    <tr
      class={`${selected ? "selected" : ""} ${row.nonfinite > 0 ? "bad" : ""}`}
      aria-current={selected ? "true" : undefined}
      onClick={() => chooseLayer(store, row.index)}
    >
      <td>
        <button type="button" class="plain name" title={layer.own_name || layer.name}>
          {elide(layer.own_name || layer.name, MOST_NAME)}
        </button>
        {canonical && <small class="dim">{canonical}</small>}
      </td>
      <td class="text">{layer.type}</td>
      <td class="number">{row.output || <Absent why="the output's shape was not seen" />}</td>
      <td class="number">{formatCount(layer.parameters)}</td>
      <Measured value={row.mean} name="mean" why={whyAbsent(kinds, ["activations"])} />
      <Measured value={row.std} name="std" why={whyAbsent(kinds, ["activations"])} />
      <Measured
        value={row.gradientRms}
        name="gradient-rms"
        why={layer.parameters === 0 ? "the layer has no parameters" : whyAbsent(kinds, ["gradients"])}
      />
      <Measured
        value={row.updateRatio}
        name="update-ratio"
        why={layer.parameters === 0 ? "the layer has no parameters" : whyAbsent(kinds, ["updates", "weights"])}
      />
      <td>
        {row.shares ? <Shares shares={row.shares} /> : <Absent why={whyAbsent(kinds, ["activations"])} />}
        {row.nonfinite > 0 && <span class="hidden">{formatCount(row.nonfinite)} NaN or Inf</span>}
      </td>
    </tr>
  );
}

function Measured({ value, name, why }: { value: number | null; name: string; why: string }) {
  return (
    <td class="number" data-statistic={name} data-value={value ?? undefined}>
      {value === null ? <Absent why={why} /> : formatValue(value)}
    </td>
  );
}

function Absent({ why }: { why: string }) {
  return (
    <span class="dim" title={`n/a: ${why}`}>
      {NOT_AVAILABLE}
    </span>
  );
}

function whyAbsent(kinds: Readonly<Record<string, KindInfo>>, wanted: readonly string[]): string {
  const missing = wanted.filter((kind) => !(kind in kinds));
  return missing.length > 0
    ? `this run records no ${missing.join(" and no ")}`
    : "not measured for this layer at this step";
}
