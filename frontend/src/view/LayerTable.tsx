/** The layers in execution order with what was measured of them at the step that is shown. */

import { useMemo } from "preact/hooks";
import type { Layer, Session } from "../api/types";
import { formatCount, formatFixed, formatShape, formatValue } from "../model/format";
import { type LayerRow, layerRows, type Sort, type SortKey, sortKeys, sortRows } from "../model/layers";
import { Absent, Figure, type GridColumn, LayerGrid } from "./LayerGrid";
import { Shares, SharesKey } from "./Shares";
import { useViewer } from "./viewer";

export function LayerTable() {
  const { store } = useViewer();
  const table = store.layers.value;
  const frame = store.frame.value;
  const profiles = store.profiles.value;
  const session = store.session.value;
  const rows = useMemo(
    () => (table ? layerRows(table, frame, profiles, outputText) : []),
    [table, frame, profiles.timing, profiles.flops],
  );
  const columns = useMemo(() => {
    const keys = sortKeys(session?.profiles ?? {});
    return columnsOf(session).filter(({ sort }) => sort === null || keys.includes(sort));
  }, [session]);
  return (
    <div class="layers">
      <LayerGrid
        title={`Layers${frame ? ` at step ${formatCount(frame.step)}` : ""}`}
        rows={rows}
        columns={columns}
        sorting={store.sort}
        sort={sorted}
      />
      <SharesKey />
    </div>
  );
}

const sorted = (rows: readonly LayerRow[], sort: Sort) => sortRows(rows, sort);

function outputText(layer: Layer): string {
  return layer.output_shapes.map(formatShape).join(", ");
}

function columnsOf(session: Session | null): readonly GridColumn<LayerRow, SortKey>[] {
  const recorded = session?.kinds ?? {};
  const ofParameters = ({ layer }: LayerRow, kinds: readonly string[]) =>
    layer.parameters === 0 ? "the layer has no parameters" : whyAbsent(recorded, kinds);
  return [
    { title: "type", hint: "the kind of layer", sort: "type", isText: true, cell: ({ layer }) => layer.type },
    {
      title: "output",
      hint: "shape of the output without the batch axis",
      sort: null,
      cell: ({ output }) => output || <Absent why="the output's shape was not seen" />,
    },
    {
      title: "parameters",
      hint: "number of values that training changes or keeps",
      sort: "parameters",
      cell: ({ layer }) => formatCount(layer.parameters),
    },
    {
      title: "MFLOP",
      hint: "million floating-point operations of the forward pass",
      sort: "flops",
      cell: ({ flops }) => (
        <Figure
          value={flops}
          name="flops"
          format={(value) => formatFixed(value / 1e6)}
          why="the operations of this layer were not counted up to this step"
        />
      ),
    },
    {
      title: "forward ms",
      hint: "time of the forward pass, at the newest step up to this one at which it was taken",
      sort: "forwardTime",
      cell: ({ forwardTime }) => (
        <Figure
          value={forwardTime}
          name="forward-time"
          format={(value) => formatFixed(value * 1e3)}
          why="the time of this layer was not taken up to this step"
        />
      ),
    },
    {
      title: "mean",
      hint: "mean of the activations",
      sort: "mean",
      cell: ({ mean }) => (
        <Figure value={mean} name="mean" format={formatValue} why={whyAbsent(recorded, ["activations"])} />
      ),
    },
    {
      title: "std",
      hint: "standard deviation of the activations",
      sort: "std",
      cell: ({ std }) => (
        <Figure value={std} name="std" format={formatValue} why={whyAbsent(recorded, ["activations"])} />
      ),
    },
    {
      title: "|grad|",
      hint: "rms of the gradient of the loss by the layer's parameters",
      sort: "gradientRms",
      cell: (row) => (
        <Figure
          value={row.gradientRms}
          name="gradient-rms"
          format={formatValue}
          why={ofParameters(row, ["gradients"])}
        />
      ),
    },
    {
      title: "|upd|/|w|",
      hint: "norm of the update divided by the norm of the weights",
      sort: "updateRatio",
      cell: (row) => (
        <Figure
          value={row.updateRatio}
          name="update-ratio"
          format={formatValue}
          why={ofParameters(row, ["updates", "weights"])}
        />
      ),
    },
    {
      title: "values",
      hint: "how the activations divide; sorts by the share of zeros",
      sort: "zero",
      cell: ({ shares, nonfinite }) => (
        <>
          {shares ? <Shares shares={shares} /> : <Absent why={whyAbsent(recorded, ["activations"])} />}
          {nonfinite > 0 && <span class="hidden">{formatCount(nonfinite)} NaN or Inf</span>}
        </>
      ),
    },
  ];
}

function whyAbsent(recorded: Session["kinds"], wanted: readonly string[]): string {
  const missing = wanted.filter((kind) => !(kind in recorded));
  return missing.length > 0
    ? `this run records no ${missing.join(" and no ")}`
    : "not measured for this layer at this step";
}
