/** The memory in use over one step, as a line per counter, with its peak and the phases of the step below. */

import { formatSizes } from "../model/format";
import { type Counter, type MemoryCurve, memoryAxis } from "../model/memory";
import { PHASES, type Span, type TimeView, type Trace, xOfTime } from "../model/trace";
import type { Theme } from "../theme/theme";
import type { Surface } from "./surface";
import { drawTimeAxis, TIME_AXIS_HEIGHT } from "./timeline";

/** Room for the sizes left of the plot. */
export const MEMORY_LEFT = 72;
/** Above the highest line, for the words at the peak. */
const TOP = 22;
/** The strip below the plot that tells the phases. */
const STRIP_HEIGHT = 6;
const STRIP_GAP = 4;

export interface MemoryMarks {
  readonly selected: Span | null;
  readonly hovered: Span | null;
  /** What stands at the peak. */
  readonly peakText: string;
}

export function drawMemory(
  surface: Surface,
  trace: Trace,
  curve: MemoryCurve,
  view: TimeView,
  marks: MemoryMarks,
  theme: Theme,
): void {
  const { context } = surface;
  const axis = memoryAxis(curve);
  const bottom = surface.height - TIME_AXIS_HEIGHT - STRIP_HEIGHT - STRIP_GAP;
  const yOf = (bytes: number) => bottom - ((bytes - axis.low) / (axis.high - axis.low)) * (bottom - TOP);
  context.textAlign = "right";
  context.textBaseline = "middle";
  const texts = formatSizes(axis.ticks);
  axis.ticks.forEach((tick, i) => {
    const y = Math.round(yOf(tick)) + 0.5;
    context.strokeStyle = theme.line;
    context.beginPath();
    context.moveTo(view.left, y);
    context.lineTo(view.width, y);
    context.stroke();
    context.fillStyle = theme.dim;
    context.fillText(texts[i] as string, view.left - 8, y);
  });
  context.save();
  context.beginPath();
  context.rect(view.left, 0, view.width - view.left, surface.height);
  context.clip();
  drawStrip(surface, trace, view, theme);
  curve.counters.forEach((counter, i) => {
    drawLine(context, curve, counter, view, yOf, { colour: theme.lines[i] as string, ground: i === 0 ? bottom : null });
  });
  drawReading(context, marks.hovered, curve, view, yOf, theme.dim);
  drawReading(context, marks.selected, curve, view, yOf, theme.text);
  drawPeak(surface, curve, view, yOf, marks.peakText, theme);
  context.restore();
  drawTimeAxis(surface, view, theme);
}

type Scale = (bytes: number) => number;

/** A reading holds until the next one: between them nothing is known, so nothing is sloped. */
function drawLine(
  context: CanvasRenderingContext2D,
  { spans }: MemoryCurve,
  counter: Counter,
  view: TimeView,
  yOf: Scale,
  style: { colour: string; ground: number | null },
): void {
  const points = spans
    .filter((span) => !Number.isNaN(span[counter]))
    .map((span) => ({ x: xOfTime(view, span.end), y: yOf(span[counter]) }));
  const [first] = points;
  const last = points[points.length - 1];
  if (first === undefined || last === undefined) return;
  context.beginPath();
  context.moveTo(first.x, first.y);
  points.forEach(({ x, y }, i) => {
    if (i > 0) context.lineTo(x, (points[i - 1] as typeof first).y);
    context.lineTo(x, y);
  });
  context.strokeStyle = style.colour;
  context.lineWidth = 1.5;
  context.stroke();
  context.lineWidth = 1;
  if (style.ground === null) return;
  context.lineTo(last.x, style.ground);
  context.lineTo(first.x, style.ground);
  context.closePath();
  context.globalAlpha = 0.14;
  context.fillStyle = style.colour;
  context.fill();
  context.globalAlpha = 1;
}

function drawStrip({ context, height }: Surface, trace: Trace, view: TimeView, theme: Theme): void {
  const top = height - TIME_AXIS_HEIGHT - STRIP_HEIGHT;
  for (const span of trace.spans) {
    if (span.layer !== null || span.phase === "step") continue;
    const left = xOfTime(view, span.start);
    context.fillStyle = theme.phases[PHASES.indexOf(span.phase)] as string;
    context.fillRect(left, top, Math.max(1, xOfTime(view, span.end) - left - 1), STRIP_HEIGHT);
  }
}

function drawReading(
  context: CanvasRenderingContext2D,
  span: Span | null,
  { counters }: MemoryCurve,
  view: TimeView,
  yOf: Scale,
  colour: string,
): void {
  const bytes = span?.[counters[0] as Counter] ?? Number.NaN;
  if (span === null || Number.isNaN(bytes)) return;
  context.fillStyle = colour;
  context.beginPath();
  context.arc(xOfTime(view, span.end), yOf(bytes), 3.5, 0, 2 * Math.PI);
  context.fill();
}

function drawPeak(
  { context }: Surface,
  { peak, counters }: MemoryCurve,
  view: TimeView,
  yOf: Scale,
  text: string,
  theme: Theme,
): void {
  const x = xOfTime(view, peak.end);
  const y = yOf(peak[counters[0] as Counter]);
  if (x < view.left || x > view.width) return;
  context.strokeStyle = theme.critical;
  context.setLineDash([4, 3]);
  context.beginPath();
  context.moveTo(view.left, Math.round(y) + 0.5);
  context.lineTo(view.width, Math.round(y) + 0.5);
  context.stroke();
  context.setLineDash([]);
  context.fillStyle = theme.critical;
  context.beginPath();
  context.arc(x, y, 4, 0, 2 * Math.PI);
  context.fill();
  const half = context.measureText(text).width / 2;
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  context.fillText(text, Math.min(view.width - half - 4, Math.max(view.left + half + 4, x)), y - 8);
}
