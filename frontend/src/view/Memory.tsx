/** Memory & FLOPs: the memory in use within a step and its peak, what each layer holds and computes, over the steps. */

import { useMemo } from "preact/hooks";
import { drawMemory, MEMORY_LEFT } from "../draw/memory";
import { formatBytes, formatCount, formatFixed, formatFlops, formatShare } from "../model/format";
import { layerLabel } from "../model/layers";
import { COUNTER_TEXTS, type MemoryCurve, memoryCurve, peakText, readingAt } from "../model/memory";
import { HELD, largestHolders, type MemoryKey, type MemoryRow, memoryRows, sortMemory, sumOf } from "../model/profile";
import type { Sorting } from "../model/sorting";
import { chooseLayer } from "../model/store";
import { type Trace, timeOfX } from "../model/trace";
import { Figure, type GridColumn, LayerGrid } from "./LayerGrid";
import { ProfileSeries } from "./ProfileSeries";
import { TableToggle } from "./Segmented";
import { SpanDetails } from "./SpanDetails";
import { SpanTable } from "./SpanTable";
import { Missing } from "./States";
import { Apart, EarlierStep, NoTrace } from "./StepNotes";
import { TimePicture, TimePictureCaption } from "./TimePicture";
import { useViewer } from "./viewer";

const CURVE_HEIGHT = 200;
const CHART_HEIGHT = 150;
const MOST_HOLDERS = 5;

export function Memory() {
  const { store } = useViewer();
  const table = store.layers.value;
  const profiles = store.profiles.value;
  const trace = store.trace.value;
  const curve = useMemo(() => memoryCurve(trace), [trace]);
  const rows = useMemo(() => (table ? memoryRows(table, profiles) : []), [table, profiles.memory, profiles.flops]);
  return (
    <div class="view">
      <div class="beside top">
        <CurvePanel trace={trace} curve={curve} />
        <Holders rows={rows} />
      </div>
      <div class="beside">
        <MemoryTable rows={rows} />
        <div class="charts">
          <ProfileSeries
            title={curve?.counters[0] === "process" ? "Process memory over steps" : "Peak memory over steps"}
            kind="trace"
            row={null}
            columns={curve?.counters ?? ["process"]}
            what="trace"
            height={CHART_HEIGHT}
          />
          <ProfileSeries
            title={`${layerLabel(table, store.layer.value)}, held over steps`}
            kind="memory"
            row={store.layer.value}
            columns={HELD}
            what="memory of layers"
            height={CHART_HEIGHT}
          />
        </div>
      </div>
    </div>
  );
}

function CurvePanel({ trace, curve }: { trace: Trace | null; curve: MemoryCurve | null }) {
  const { store } = useViewer();
  return (
    <section class="panel">
      <div class="panel-head">
        <h2>
          {trace ? `Memory within step ${formatCount(trace.step)}` : "Memory within a step"}{" "}
          <EarlierStep step={trace?.step ?? null} />
        </h2>
        <div class="choices">
          {curve && <CounterKey curve={curve} />}
          <TableToggle
            shown={store.asTable.value}
            onToggle={() => {
              store.asTable.value = !store.asTable.value;
            }}
          />
        </div>
      </div>
      {trace === null ? (
        <NoTrace profile={store.profiles.value.trace} room={CURVE_HEIGHT} />
      ) : curve === null ? (
        <div class="missing" style={{ minHeight: `${CURVE_HEIGHT}px` }}>
          <p>No counter of memory was read in this step.</p>
        </div>
      ) : store.asTable.value ? (
        <SpanTable trace={trace} room={CURVE_HEIGHT + 40} />
      ) : (
        <>
          <Curve trace={trace} curve={curve} />
          <TimePictureCaption />
          <Apart />
          <SpanDetails trace={trace} />
        </>
      )}
    </section>
  );
}

function Curve({ trace, curve }: { trace: Trace; curve: MemoryCurve }) {
  const { store } = useViewer();
  const text = peakText(curve, store.layers.value);
  const selected = store.span.value;
  return (
    <TimePicture
      label={`Memory within step ${formatCount(trace.step)}. Peak: ${text}. Press t for the table.`}
      trace={trace}
      height={CURVE_HEIGHT}
      room={CURVE_HEIGHT}
      left={MEMORY_LEFT}
      spanUnder={(view, { x }) => (x < view.left ? null : readingAt(curve, timeOfX(view, x)))}
      draw={(surface, view, hovered, theme) =>
        drawMemory(surface, trace, curve, view, { selected, hovered, peakText: text }, theme)
      }
    />
  );
}

/** Which line is which; on a CPU, why there is no other. */
function CounterKey({ curve }: { curve: MemoryCurve }) {
  const { theme } = useViewer();
  return (
    <span class="readout">
      {curve.counters.map((counter, i) => (
        <span key={counter}>
          <i style={{ background: theme.value.lines[i] }} />
          {COUNTER_TEXTS[counter]}
        </span>
      ))}
      {curve.counters[0] === "process" && (
        <span
          class="dim"
          title="n/a: on a CPU there is no counter of an allocator. What the whole process holds in memory is shown."
        >
          allocated <b>n/a</b>
        </span>
      )}
    </span>
  );
}

function Holders({ rows }: { rows: readonly MemoryRow[] }) {
  const { store } = useViewer();
  const step = store.profiles.value.memory?.step ?? null;
  const largest = largestHolders(rows, MOST_HOLDERS);
  const total = sumOf(rows.map((row) => row.total));
  const recorded = "memory" in (store.session.value?.profiles ?? {});
  return (
    <section class="panel">
      <div class="panel-head">
        <h2>{step === null ? "Held by layers" : `Held by layers at step ${formatCount(step)}`}</h2>
        <b class="number">{formatBytes(total)}</b>
      </div>
      {largest.length === 0 ? (
        <Missing recorded={recorded && step === null} kind="memory of layers" room={CURVE_HEIGHT} />
      ) : (
        <>
          <ol class="holders">
            {largest.map((row) => (
              <li key={row.index}>
                <button type="button" class="plain" onClick={() => chooseLayer(store, row.index)}>
                  {layerLabel(store.layers.value, row.index)}
                </button>
                <span class="number">
                  {formatBytes(row.total)} <span class="dim">{formatShare(row.share)}</span>
                </span>
                <Parts row={row} most={largest[0]?.total ?? 0} />
              </li>
            ))}
          </ol>
          <PartsKey />
        </>
      )}
    </section>
  );
}

function Parts({ row, most }: { row: MemoryRow; most: number }) {
  const { theme } = useViewer();
  const text = HELD.map((name) => `${name} ${formatBytes(row[name])}`).join(", ");
  return (
    <span class="parts" role="img" aria-label={text} title={text}>
      {HELD.map((name, i) => (
        <i key={name} style={{ width: `${((row[name] ?? 0) / most) * 100}%`, background: theme.value.lines[i] }} />
      ))}
    </span>
  );
}

function PartsKey() {
  const { theme } = useViewer();
  return (
    <p class="shares-key">
      {HELD.map((name, i) => (
        <span key={name}>
          <i style={{ background: theme.value.lines[i] }} /> {name}
        </span>
      ))}
    </p>
  );
}

function MemoryTable({ rows }: { rows: readonly MemoryRow[] }) {
  const { store } = useViewer();
  const step = store.profiles.value.memory?.step ?? store.profiles.value.flops?.step ?? null;
  const recorded = store.session.value?.profiles ?? {};
  const columns = useMemo(() => columnsOf(recorded), [recorded]);
  const operations = sumOf(rows.map((row) => sumOf([row.forwardFlops, row.backwardFlops])));
  return (
    <div class="layers">
      <LayerGrid
        title={step === null ? "Layers" : `Layers at step ${formatCount(step)}`}
        rows={rows}
        columns={columns}
        sorting={store.memorySort}
        sort={sorted}
      />
      <p class="caption">
        {operations === null
          ? "This run counted no operations."
          : `${formatFlops(operations)} in all, forward and backward.`}
      </p>
    </div>
  );
}

const sorted = (rows: readonly MemoryRow[], { key, descending }: Sorting<MemoryKey>) =>
  sortMemory(rows, key, descending);

const MEANINGS = {
  activations: "bytes of the layer's outputs",
  parameters: "bytes of its parameters",
  gradients: "bytes of its parameters' gradients",
  optimizer: "bytes of what the optimizer keeps of its parameters",
} as const;

function columnsOf(recorded: Readonly<Record<string, number>>): readonly GridColumn<MemoryRow, MemoryKey>[] {
  const noMemory = "memory" in recorded ? "not measured for this layer" : "this run records no memory of layers";
  const noFlops = "flops" in recorded ? "its operations were not counted" : "this run counts no operations";
  const megaflops = (value: number) => formatFixed(value / 1e6);
  return [
    ...HELD.map((name) => ({
      title: name,
      hint: MEANINGS[name],
      sort: name,
      cell: (row: MemoryRow) => <Figure value={row[name]} name={name} format={formatBytes} why={noMemory} />,
    })),
    {
      title: "total",
      hint: "all of these together, with its share of what all layers hold",
      sort: "total",
      cell: ({ total, share }) => (
        <span class="with-bar">
          {share !== null && <i style={{ width: `${share * 100}%` }} />}
          <Figure value={total} name="total" format={formatBytes} why={noMemory} />
        </span>
      ),
    },
    {
      title: "forward MFLOP",
      hint: "million floating-point operations of the forward pass",
      sort: "forwardFlops",
      cell: ({ forwardFlops }) => <Figure value={forwardFlops} name="forward-flops" format={megaflops} why={noFlops} />,
    },
    {
      title: "backward MFLOP",
      hint: "million floating-point operations of the backward pass",
      sort: "backwardFlops",
      cell: ({ backwardFlops }) => (
        <Figure value={backwardFlops} name="backward-flops" format={megaflops} why={noFlops} />
      ),
    },
    {
      title: "share",
      hint: "of the operations of all layers, forward and backward",
      sort: "flopShare",
      cell: ({ flopShare }) => (
        <span class="with-bar">
          {flopShare !== null && <i style={{ width: `${flopShare * 100}%` }} />}
          <Figure value={flopShare} name="flop-share" format={formatShare} why={noFlops} />
        </span>
      ),
    },
  ];
}
