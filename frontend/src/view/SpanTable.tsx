/** The table behind a picture of one step: its spans by start. */

import { useState } from "preact/hooks";
import { formatBytes, formatCount, formatDuration, NOT_AVAILABLE } from "../model/format";
import { layerLabel } from "../model/layers";
import { chooseSpan } from "../model/store";
import type { Span, Trace } from "../model/trace";
import { listWindow } from "../model/viewport";
import { ScrollTable } from "./ScrollTable";
import { useViewer } from "./viewer";

const ROW_HEIGHT = 25;
const COUNTERS = ["allocated", "reserved", "process"] as const;

const WHY_ABSENT = {
  allocated: "there is no counter of an allocator here, as on a CPU",
  reserved: "there is no counter of an allocator here, as on a CPU",
  process: "the memory of the process was not read",
} as const;

export function SpanTable({ trace, room }: { trace: Trace; room: number }) {
  const [scrolled, setScrolled] = useState(0);
  const { spans } = trace;
  const { first, end } = listWindow(spans.length, ROW_HEIGHT, scrolled, room);
  const label = `Spans of step ${formatCount(trace.step)}`;
  return (
    <ScrollTable label={label} room={room} rowCount={spans.length} onScroll={setScrolled}>
      <thead>
        <tr>
          {["layer", "phase", "start", "duration", ...COUNTERS].map((title) => (
            <th key={title} scope="col">
              {title}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {first > 0 && <tr style={{ height: `${first * ROW_HEIGHT}px` }} />}
        {spans.slice(first, end).map((span) => (
          <SpanRow key={span.index} span={span} />
        ))}
        {end < spans.length && <tr style={{ height: `${(spans.length - end) * ROW_HEIGHT}px` }} />}
      </tbody>
    </ScrollTable>
  );
}

function SpanRow({ span }: { span: Span }) {
  const { store } = useViewer();
  const selected = store.span.value?.index === span.index;
  return (
    <tr aria-rowindex={span.index + 2} class={selected ? "selected" : ""} aria-current={selected ? "true" : undefined}>
      <th scope="row">
        <button type="button" class="plain" onClick={() => chooseSpan(store, span)}>
          {span.layer === null ? "whole model" : layerLabel(store.layers.value, span.layer)}
        </button>
      </th>
      <td>{span.phase}</td>
      <td class="number" data-start={span.start}>
        {formatDuration(span.start)}
      </td>
      <td class="number" data-duration={span.duration}>
        {formatDuration(span.duration)}
      </td>
      {COUNTERS.map((counter) => (
        <td key={counter} class="number">
          {Number.isNaN(span[counter]) ? (
            <span class="dim" title={`n/a: ${WHY_ABSENT[counter]}`}>
              {NOT_AVAILABLE}
            </span>
          ) : (
            formatBytes(span[counter])
          )}
        </td>
      ))}
    </tr>
  );
}
