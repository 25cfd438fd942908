/** The Execution trace: when each layer ran within a step, what it took, and what it took over the steps. */

import { useMemo } from "preact/hooks";
import type { Shape } from "../api/types";
import { drawTimeline, LANE_HEIGHT, TIME_AXIS_HEIGHT } from "../draw/timeline";
import {
  elide,
  formatCount,
  formatDuration,
  formatFixed,
  formatShape,
  formatShare,
  formatTensors,
} from "../model/format";
import { layerLabel } from "../model/layers";
import { sortTimes, type TimeKey, type TimeRow, timeRows } from "../model/profile";
import type { Sorting } from "../model/sorting";
import { phaseDuration, type Span, spanAt, spanName, type Trace, traceSummary } from "../model/trace";
import { Absent, Figure, type GridColumn, LayerGrid } from "./LayerGrid";
import { PhaseKey } from "./PhaseKey";
import { ProfileSeries } from "./ProfileSeries";
import { TableToggle } from "./Segmented";
import { SpanDetails } from "./SpanDetails";
import { SpanTable } from "./SpanTable";
import { Apart, EarlierStep, NoTrace } from "./StepNotes";
import { TimePicture, TimePictureCaption } from "./TimePicture";
import { useViewer } from "./viewer";

/** Deeper traces scroll. */
const TIMELINE_ROOM = 230;
const CHART_HEIGHT = 150;
const OF_LAYER = ["forward", "backward"] as const;
const OF_STEP = ["step", "forward", "backward", "optimizer"] as const;

export function ExecutionTrace() {
  const { store } = useViewer();
  const layer = layerLabel(store.layers.value, store.layer.value);
  return (
    <div class="view">
      <TimelinePanel />
      <div class="beside">
        <TimesTable />
        <div class="charts">
          <ProfileSeries
            title={`${layer}, time over steps`}
            kind="timing"
            row={store.layer.value}
            columns={OF_LAYER}
            what="times of layers"
            height={CHART_HEIGHT}
          />
          <ProfileSeries
            title="Whole step, time over steps"
            kind="trace"
            row={null}
            columns={OF_STEP}
            what="trace"
            height={CHART_HEIGHT}
          />
        </div>
      </div>
    </div>
  );
}

function TimelinePanel() {
  const { store } = useViewer();
  const trace = store.trace.value;
  return (
    <section class="panel">
      <div class="panel-head">
        <h2>
          {trace ? `Execution of step ${formatCount(trace.step)}` : "Execution of a step"}{" "}
          <EarlierStep step={trace?.step ?? null} />
        </h2>
        <div class="choices">
          {trace && <PhaseKey trace={trace} />}
          <TableToggle
            shown={store.asTable.value}
            onToggle={() => {
              store.asTable.value = !store.asTable.value;
            }}
          />
        </div>
      </div>
      {trace === null ? (
        <NoTrace profile={store.profiles.value.trace} room={TIMELINE_ROOM} />
      ) : store.asTable.value ? (
        <SpanTable trace={trace} room={TIMELINE_ROOM} />
      ) : (
        <>
          <Timeline trace={trace} />
          <TimePictureCaption />
          <Apart />
          <SpanDetails trace={trace} />
        </>
      )}
    </section>
  );
}

function Timeline({ trace }: { trace: Trace }) {
  const { store } = useViewer();
  const selected = store.span.value;
  const table = store.layers.value;
  const nameOf = (span: Span) => {
    if (span.layer === null) return `${span.phase} ${formatDuration(span.duration)}`;
    return layerLabel(table, span.layer);
  };
  return (
    <TimePicture
      label={`${traceSummary(trace)}${selected ? ` Chosen: ${spanName(selected, table)}.` : ""} Press t for the table.`}
      trace={trace}
      height={trace.lanes * LANE_HEIGHT + TIME_AXIS_HEIGHT}
      room={TIMELINE_ROOM}
      left={0}
      spanUnder={(view, { x, y }) => spanAt(trace, view, LANE_HEIGHT, x, y)}
      draw={(surface, view, hovered, theme) => drawTimeline(surface, trace, view, { selected, hovered, nameOf }, theme)}
    />
  );
}

function TimesTable() {
  const { store } = useViewer();
  const table = store.layers.value;
  const profiles = store.profiles.value;
  const step = profiles.timing?.step ?? null;
  const trace = store.trace.value;
  // A share of another step's duration would be none.
  const duration = trace !== null && trace.step === step ? phaseDuration(trace, "step") : null;
  const rows = useMemo(
    () => (table ? timeRows(table, profiles, duration) : []),
    [table, profiles.timing, profiles.flops, duration],
  );
  const recorded = store.session.value?.profiles ?? {};
  const columns = useMemo(() => columnsOf(recorded, duration !== null), [recorded, duration !== null]);
  return (
    <LayerGrid
      title={step === null ? "Layers" : `Layers at step ${formatCount(step)}`}
      rows={rows}
      columns={columns}
      sorting={store.timeSort}
      sort={sorted}
    />
  );
}

const sorted = (rows: readonly TimeRow[], { key, descending }: Sorting<TimeKey>) => sortTimes(rows, key, descending);

const milliseconds = (seconds: number) => formatFixed(seconds * 1e3);

function columnsOf(
  recorded: Readonly<Record<string, number>>,
  isOfStep: boolean,
): readonly GridColumn<TimeRow, TimeKey>[] {
  const noTime = "timing" in recorded ? "it did not run in this step, or was not timed" : "this run records no times";
  const noFlops = "flops" in recorded ? "its operations were not counted" : "this run counts no operations";
  return [
    {
      title: "forward ms",
      hint: "time of the forward pass, all calls together",
      sort: "forward",
      cell: ({ forward }) => <Figure value={forward} name="forward" format={milliseconds} why={noTime} />,
    },
    {
      title: "backward ms",
      hint: "time of the backward pass, all calls together",
      sort: "backward",
      cell: ({ backward }) => <Figure value={backward} name="backward" format={milliseconds} why={noTime} />,
    },
    {
      title: "share",
      hint: isOfStep
        ? "forward and backward, of the duration of the step"
        : "forward and backward, of the time of all layers (the step as a whole was not timed)",
      sort: "share",
      cell: ({ share }) => (
        <span class="with-bar">
          {share !== null && <i style={{ width: `${Math.min(1, share) * 100}%` }} />}
          <Figure value={share} name="share" format={formatShare} why={noTime} />
        </span>
      ),
    },
    {
      title: "calls",
      hint: "how often the layer ran in the step",
      sort: "calls",
      cell: ({ calls }) => <Figure value={calls} name="calls" format={formatCount} why={noTime} />,
    },
    {
      title: "input",
      hint: "shapes of the inputs without the batch axis",
      sort: null,
      cell: ({ layer }) => <Shapes shapes={layer.input_shapes} types={layer.input_dtypes} />,
    },
    {
      title: "output",
      hint: "shapes of the outputs without the batch axis",
      sort: null,
      cell: ({ layer }) => <Shapes shapes={layer.output_shapes} types={layer.output_dtypes} />,
    },
    {
      title: "MFLOP",
      hint: "million floating-point operations of the forward pass",
      sort: "flops",
      cell: ({ flops }) => (
        <Figure value={flops} name="flops" format={(value) => formatFixed(value / 1e6)} why={noFlops} />
      ),
    },
    {
      title: "GFLOP/s",
      hint: "billion floating-point operations per second of the forward pass",
      sort: "rate",
      cell: ({ rate, flops }) => (
        <Figure
          value={rate}
          name="rate"
          format={(value) => formatFixed(value / 1e9)}
          why={flops === null ? noFlops : noTime}
        />
      ),
    },
  ];
}

const MOST_SHAPES = 22;

function Shapes({ shapes, types }: { shapes: readonly Shape[]; types: readonly string[] }) {
  if (shapes.length === 0) return <Absent why="the shapes were not seen" />;
  return <span title={formatTensors(shapes, types)}>{elide(shapes.map(formatShape).join(", "), MOST_SHAPES)}</span>;
}
