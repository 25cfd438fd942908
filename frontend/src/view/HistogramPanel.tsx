/** The histogram of the chosen layer at the step that is shown, and what of it a narrow float type would lose. */

import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { fetchHistogramAt } from "../api/client";
import type { Histograms } from "../api/types";
import { barAt, drawBars } from "../draw/bars";
import { prepare } from "../draw/surface";
import { type Distribution, distributionOf, FP16_LEAST, FP16_LEAST_NORMAL, formatPart } from "../model/distribution";
import { formatCount, formatPowerOfTwo, formatShare } from "../model/format";
import { lacksParameters, layerLabel } from "../model/layers";
import { ScrollTable } from "./ScrollTable";
import { Missing, Notice } from "./States";
import { useQuery, useSize, useViewer } from "./viewer";

export interface HistogramPanelProps {
  readonly kind: string;
  readonly byLayer: boolean;
  readonly height: number;
}

export function HistogramPanel({ kind, byLayer, height }: HistogramPanelProps) {
  const { store } = useViewer();
  const run = store.run.value;
  const row = store.layer.value;
  const step = store.frame.value?.step ?? null;
  const recorded = (store.session.value?.kinds[kind]?.histograms ?? 0) > 0;
  const lacking = byLayer && lacksParameters(store.layers.value, row);
  const { value, error } = useQuery<Histograms>(
    run !== null && step !== null && recorded && !lacking ? `${run} ${kind} ${row}` : null,
    String(step),
    (signal) => fetchHistogramAt({ run: run ?? "", kind, byLayer, row }, step ?? 0, signal),
  );
  const distribution = useMemo(() => (value?.firstStep.length ? distributionOf(value, 0) : null), [value]);
  const shownStep = value?.lastStep[0] ?? step;
  const title = shownStep === null ? "Histogram" : `Histogram at step ${formatCount(shownStep)}`;
  return (
    <section class="panel">
      <figure class="chart">
        <figcaption>
          <span class="title" title={layerLabel(store.layers.value, row)}>
            {title}
          </span>
          <span class="readout">powers of two</span>
        </figcaption>
        {error !== null && <Notice sentence={error} />}
        {distribution === null ? (
          error === null && (
            <Missing
              recorded={recorded && value === null}
              kind={`histograms of ${kind}`}
              room={height}
              lacking={lacking}
            />
          )
        ) : (
          <>
            <Underflow distribution={distribution} />
            {store.asTable.value ? (
              <BarTable distribution={distribution} label={title} room={height} />
            ) : (
              <Bars distribution={distribution} label={title} height={height} />
            )}
          </>
        )}
      </figure>
    </section>
  );
}

function Underflow({ distribution }: { distribution: Distribution }) {
  const { belowNormal, belowLeast, zeros, weight, counted, total, nonfinite } = distribution;
  const limits = `Of the values that are not zero, ${formatShare(belowLeast)} lie below ${formatPowerOfTwo(FP16_LEAST)}, fp16's smallest number, and ${formatShare(belowNormal)} below ${formatPowerOfTwo(FP16_LEAST_NORMAL)}, its smallest normal number.`;
  const sampled = total > counted ? ` Counted were ${formatCount(counted)} of ${formatCount(total)} values.` : "";
  return (
    <p class="facts-line" title={limits + sampled}>
      {belowLeast !== null && (
        <span class={belowLeast > 0 ? "warning-text" : "dim"}>{formatShare(belowLeast)} below fp16</span>
      )}
      {belowNormal !== null && <span class="dim">{formatShare(belowNormal)} below its normal range</span>}
      <span class="dim">{formatShare(weight > 0 ? zeros / weight : null)} zeros</span>
      {nonfinite > 0 && <span class="nonfinite-text">{formatPart(nonfinite, distribution)} NaN or Inf</span>}
    </p>
  );
}

function Bars({ distribution, label, height }: { distribution: Distribution; label: string; height: number }) {
  const { theme } = useViewer();
  const { ref, width } = useSize<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const [hovered, setHovered] = useState<number | null>(null);
  const style = theme.value;
  useEffect(() => {
    const surface = canvas.current && prepare(canvas.current, width, height);
    if (surface) drawBars(surface, distribution, style);
  }, [distribution, width, height, style]);
  const bar = hovered === null ? undefined : distribution.bars[hovered];
  return (
    <div ref={ref} class="bars" style={{ height: `${height}px` }}>
      <canvas
        ref={canvas}
        role="img"
        aria-label={`${label}. Press t for the table.`}
        style={{ width: `${width}px`, height: `${height}px` }}
        onPointerMove={(event) => setHovered(barAt(width, distribution, event.offsetX))}
        onPointerLeave={() => setHovered(null)}
      />
      {bar && (
        <p class="bar-readout">
          {formatPowerOfTwo(bar.exponent)} to {formatPowerOfTwo(bar.exponent + 1)}:{" "}
          {formatPart(bar.positive, distribution)} positive, {formatPart(bar.negative, distribution)} negative
        </p>
      )}
    </div>
  );
}

function BarTable({ distribution, label, room }: { distribution: Distribution; label: string; room: number }) {
  return (
    <ScrollTable label={label} room={room} rowCount={distribution.bars.length}>
      <thead>
        <tr>
          <th scope="col">magnitude from</th>
          <th scope="col">negative</th>
          <th scope="col">positive</th>
        </tr>
      </thead>
      <tbody>
        {distribution.bars.map((bar) => (
          <tr key={bar.exponent}>
            <th scope="row">{formatPowerOfTwo(bar.exponent)}</th>
            <td class="number" data-value={bar.negative}>
              {formatPart(bar.negative, distribution)}
            </td>
            <td class="number" data-value={bar.positive}>
              {formatPart(bar.positive, distribution)}
            </td>
          </tr>
        ))}
      </tbody>
    </ScrollTable>
  );
}
