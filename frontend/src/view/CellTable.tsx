/** The table behind a heat map: one cell per row and column, in full precision for machines. */

import { useState } from "preact/hooks";
import type { Columns } from "../api/types";
import { formatCount } from "../model/format";
import { listWindow } from "../model/viewport";
import { ScrollTable } from "./ScrollTable";

export interface Cell {
  /** As shown, and in full precision; null where nothing was measured. */
  readonly text: string;
  readonly value: number | null;
  readonly minimum: number | null;
  readonly maximum: number | null;
  readonly nonfinite: boolean;
}

export interface CellTableProps {
  readonly label: string;
  readonly names: readonly string[];
  readonly columns: Columns;
  readonly room: number;
  readonly selected: number | null;
  readonly cell: (row: number, column: number) => Cell;
  readonly onPick: (row: number, column: number | null) => void;
}

const ROW_HEIGHT = 25;

export function CellTable(props: CellTableProps) {
  const [scrolled, setScrolled] = useState(0);
  const rows = props.names.length;
  const { first, end } = listWindow(rows, ROW_HEIGHT, scrolled, props.room);
  const steps = Array.from(props.columns.firstStep);
  return (
    <ScrollTable label={props.label} room={props.room + ROW_HEIGHT} rowCount={rows} onScroll={setScrolled}>
      <thead>
        <tr>
          <th scope="col">step</th>
          {steps.map((step) => (
            <th key={step} scope="col" class="number">
              {formatCount(step)}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {first > 0 && <tr style={{ height: `${first * ROW_HEIGHT}px` }} />}
        {props.names.slice(first, end).map((name, i) => (
          <CellRow key={name} {...props} name={name} row={first + i} steps={steps} />
        ))}
        {end < rows && <tr style={{ height: `${(rows - end) * ROW_HEIGHT}px` }} />}
      </tbody>
    </ScrollTable>
  );
}

function CellRow(props: CellTableProps & { name: string; row: number; steps: readonly number[] }) {
  const { name, row, steps } = props;
  return (
    <tr aria-rowindex={row + 2} class={row === props.selected ? "selected" : ""}>
      <th scope="row">
        <button type="button" class="plain" onClick={() => props.onPick(row, null)}>
          {name}
        </button>
      </th>
      {steps.map((step, column) => {
        const cell = props.cell(row, column);
        return (
          <td
            key={step}
            class={`number ${cell.nonfinite ? "nonfinite-text" : ""}`}
            data-row={name}
            data-step={step}
            data-last-step={props.columns.lastStep[column]}
            data-value={cell.value ?? undefined}
            data-minimum={cell.minimum ?? undefined}
            data-maximum={cell.maximum ?? undefined}
          >
            {cell.text}
          </td>
        );
      })}
    </tr>
  );
}
