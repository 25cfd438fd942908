/** The timeline of a step: a lane per depth, a bar per span, coloured by its phase. */

import { roundTicks } from "../model/axis";
import { elide, formatDurations } from "../model/format";
import { PHASES, type Span, type TimeView, type Trace, xOfTime } from "../model/trace";
import type { Theme } from "../theme/theme";
import type { Surface } from "./surface";

export const LANE_HEIGHT = 22;
/** Height of the axis of time below a picture. */
export const TIME_AXIS_HEIGHT = 24;
const LANE_GAP = 2;
const CHARACTER_WIDTH = 7.2;
/** Bars that are narrower touch one another: a gap would be all that is seen of them. */
const LEAST_WITH_GAP = 4;
const LEAST_WITH_NAME = 44;
const TICK_DISTANCE = 110;

export interface TimelineMarks {
  readonly selected: Span | null;
  readonly hovered: Span | null;
  /** What is written on a span. */
  readonly nameOf: (span: Span) => string;
}

/** Draws onto a surface as high as the lanes and the axis. */
export function drawTimeline(surface: Surface, trace: Trace, view: TimeView, marks: TimelineMarks, theme: Theme): void {
  const { context } = surface;
  context.save();
  context.beginPath();
  context.rect(view.left, 0, view.width - view.left, surface.height - TIME_AXIS_HEIGHT);
  context.clip();
  for (const span of trace.spans) {
    if (span.end < view.from || span.start > view.to) continue;
    drawSpan(context, span, view, marks, theme);
  }
  for (const [span, colour] of [
    [marks.hovered, theme.dim],
    [marks.selected, theme.text],
  ] as const) {
    if (span !== null) outline(context, span, view, colour);
  }
  context.restore();
  drawTimeAxis(surface, view, theme);
}

function box(span: Span, view: TimeView) {
  const left = xOfTime(view, span.start);
  const width = xOfTime(view, span.end) - left;
  const gap = width >= LEAST_WITH_GAP ? 1 : 0;
  return { left, width: Math.max(1, width - gap), top: span.lane * LANE_HEIGHT, height: LANE_HEIGHT - LANE_GAP };
}

function drawSpan(
  context: CanvasRenderingContext2D,
  span: Span,
  view: TimeView,
  marks: TimelineMarks,
  theme: Theme,
): void {
  const { left, width, top, height } = box(span, view);
  context.fillStyle = theme.phases[PHASES.indexOf(span.phase)] as string;
  context.fillRect(left, top, width, height);
  // The name stands where the bar can be seen, not where it begins.
  const from = Math.max(left, view.left);
  const room = Math.min(left + width, view.width) - from;
  if (room < LEAST_WITH_NAME) return;
  context.fillStyle = theme.text;
  context.textAlign = "left";
  context.textBaseline = "middle";
  context.fillText(
    elide(marks.nameOf(span), Math.floor((room - 8) / CHARACTER_WIDTH)),
    from + 5,
    top + height / 2 + 0.5,
  );
}

function outline(context: CanvasRenderingContext2D, span: Span, view: TimeView, colour: string): void {
  const { left, width, top, height } = box(span, view);
  context.strokeStyle = colour;
  context.lineWidth = 2;
  // Never so narrow that it could not be found.
  const shown = Math.max(4, width);
  context.strokeRect(left - (shown - width) / 2 + 1, top + 1, Math.max(2, shown - 2), height - 2);
  context.lineWidth = 1;
}

/** Draws the axis of time at the lower edge of the surface. */
export function drawTimeAxis({ context, height }: Surface, view: TimeView, theme: Theme): void {
  const top = height - TIME_AXIS_HEIGHT;
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  context.strokeStyle = theme.line;
  context.fillStyle = theme.dim;
  const ticks = roundTicks(view.from, view.to, (view.width - view.left) / TICK_DISTANCE);
  const texts = formatDurations(ticks);
  ticks.forEach((tick, i) => {
    const x = Math.round(xOfTime(view, tick)) + 0.5;
    context.beginPath();
    context.moveTo(x, top);
    context.lineTo(x, top + 4);
    context.stroke();
    const text = texts[i] as string;
    const half = context.measureText(text).width / 2;
    context.fillText(text, Math.min(view.width - half, Math.max(view.left + half, x)), top + 17);
  });
}
