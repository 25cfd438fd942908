/** One histogram: a bar per power of two, negative values below the line and positive ones above it. */

import { exponentTicks } from "../model/axis";
import { type Distribution, FP16_LEAST, FP16_LEAST_NORMAL } from "../model/distribution";
import { formatPowerOfTwo } from "../model/format";
import type { Theme } from "../theme/theme";
import type { Surface } from "./surface";

const AXIS_HEIGHT = 24;
const MARGIN = 12;
const LEAST_BAR_HEIGHT = 1.5;
const MOST_BAR_WIDTH = 26;

/** Where bars are drawn: `unit` is the width of one exponent, `base` the line that bars stand on. */
interface BarLayout {
  readonly least: number;
  readonly unit: number;
  readonly base: number;
  readonly perValue: number;
  readonly bottom: number;
}

function layoutOf(surface: Surface, distribution: Distribution): BarLayout {
  const { bars } = distribution;
  const up = Math.max(0, ...bars.map((bar) => bar.positive));
  const down = Math.max(0, ...bars.map((bar) => bar.negative));
  const bottom = surface.height - AXIS_HEIGHT;
  const perValue = (bottom - MARGIN) / (up + down || 1);
  return {
    least: bars[0]?.exponent ?? 0,
    unit: unitOf(surface.width, bars.length),
    base: MARGIN + up * perValue,
    perValue,
    bottom,
  };
}

function unitOf(width: number, bars: number): number {
  return Math.min(MOST_BAR_WIDTH, (width - 2 * MARGIN) / Math.max(1, bars));
}

/** Returns the index of the bar under `x`, or null. */
export function barAt(surfaceWidth: number, distribution: Distribution, x: number): number | null {
  const unit = unitOf(surfaceWidth, distribution.bars.length);
  const index = Math.floor((x - MARGIN) / unit);
  return index >= 0 && index < distribution.bars.length ? index : null;
}

export function drawBars(surface: Surface, distribution: Distribution, theme: Theme): void {
  const { context } = surface;
  const layout = layoutOf(surface, distribution);
  const gap = layout.unit > 5 ? 1.5 : 0.5;
  distribution.bars.forEach((bar, index) => {
    const x = MARGIN + index * layout.unit + gap / 2;
    const width = layout.unit - gap;
    context.fillStyle = bar.exponent < FP16_LEAST_NORMAL ? theme.warning : theme.accent;
    context.globalAlpha = bar.exponent < FP16_LEAST ? 0.55 : 0.9;
    const height = (count: number) => (count > 0 ? Math.max(LEAST_BAR_HEIGHT, count * layout.perValue) : 0);
    context.fillRect(x, layout.base - height(bar.positive), width, height(bar.positive));
    context.fillRect(x, layout.base, width, height(bar.negative));
  });
  context.globalAlpha = 1;
  drawLimits(surface, distribution, layout, theme);
  drawExponents(surface, distribution, layout, theme);
}

function drawLimits({ context }: Surface, distribution: Distribution, layout: BarLayout, theme: Theme): void {
  context.strokeStyle = theme.line;
  context.beginPath();
  context.moveTo(0, Math.round(layout.base) + 0.5);
  context.lineTo(MARGIN + layout.unit * distribution.bars.length + MARGIN, Math.round(layout.base) + 0.5);
  context.stroke();
  const most = layout.least + distribution.bars.length;
  context.fillStyle = theme.dim;
  context.textAlign = "left";
  context.textBaseline = "alphabetic";
  if (distribution.bars.some((bar) => bar.positive > 0)) context.fillText("+", 1, layout.base - 4);
  if (distribution.bars.some((bar) => bar.negative > 0)) context.fillText("\u2212", 1, layout.base + 13);
  context.strokeStyle = theme.dim;
  context.setLineDash([3, 3]);
  for (const limit of [FP16_LEAST_NORMAL, FP16_LEAST]) {
    if (limit <= layout.least || limit >= most) continue;
    const x = Math.round(MARGIN + (limit - layout.least) * layout.unit) + 0.5;
    context.beginPath();
    context.moveTo(x, 0);
    context.lineTo(x, layout.bottom);
    context.stroke();
  }
  context.setLineDash([]);
}

function drawExponents({ context }: Surface, distribution: Distribution, layout: BarLayout, theme: Theme): void {
  const last = layout.least + distribution.bars.length - 1;
  const LABEL_WIDTH = 44;
  context.fillStyle = theme.dim;
  context.textAlign = "center";
  context.textBaseline = "alphabetic";
  for (const exponent of exponentTicks(
    layout.least,
    last,
    Math.max(1, Math.floor((layout.unit * distribution.bars.length) / LABEL_WIDTH)),
  )) {
    const x = MARGIN + (exponent - layout.least + 0.5) * layout.unit;
    context.fillText(formatPowerOfTwo(exponent), x, layout.bottom + 17);
  }
}
