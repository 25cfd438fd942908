/** From magnitudes to colours: the ramp, the scale, and the cells of a picture as palette entries. */

import { MEASURED, NONFINITE } from "../api/types";
import type { RampStop } from "../theme/theme";

export type Rgb = readonly [red: number, green: number, blue: number];

/** The palette: three entries with a meaning of their own, then the ramp. */
export const UNMEASURED_LEVEL = 0;
export const NONFINITE_LEVEL = 1;
export const EMPTY_LEVEL = 2;
export const FIRST_LEVEL = 3;
export const LEVELS = 256;
const RAMP_LEVELS = LEVELS - FIRST_LEVEL;

/** A scale of log10 magnitudes, or a linear one where values have a sign or are shares. */
export interface Scale {
  readonly log: boolean;
  readonly low: number;
  readonly high: number;
}

/** The widest span of decades that a scale shows: below it everything has the colour of its lower end. */
const MOST_DECADES = 12;

/** Returns the position of `value` on the scale, from 0 to 1; what lies outside is at its end. */
export function position(scale: Scale, value: number): number {
  const place = scale.log ? Math.log10(Math.abs(value)) : value;
  const share = (place - scale.low) / (scale.high - scale.low);
  return Math.min(1, Math.max(0, Number.isNaN(share) ? 0 : share));
}

/** Returns a scale of whole decades that holds the magnitudes of `values`; zeros and NaN do not count. */
export function decades(values: ArrayLike<number>): Scale {
  let least = Number.POSITIVE_INFINITY;
  let most = 0;
  for (let i = 0; i < values.length; i++) {
    const magnitude = Math.abs(values[i] as number);
    if (magnitude > 0 && Number.isFinite(magnitude)) {
      if (magnitude < least) least = magnitude;
      if (magnitude > most) most = magnitude;
    }
  }
  if (most === 0) return { log: true, low: -1, high: 0 };
  const high = Math.ceil(Math.log10(most)) + 0; // + 0 turns -0 into 0
  const low = Math.max(Math.floor(Math.log10(least)), high - MOST_DECADES);
  return { log: true, low: Math.min(low, high - 1), high };
}

/** Returns a linear scale that holds `values`; NaN does not count. */
export function span(values: ArrayLike<number>): Scale {
  let low = Number.POSITIVE_INFINITY;
  let high = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return { log: false, low: 0, high: 1 };
  return low === high ? { log: false, low: low - 0.5, high: high + 0.5 } : { log: false, low, high };
}

/** Returns the palette entry of each cell. `states` are those of the HTTP API; a NaN value is nothing finite. */
export function levels(values: Float32Array, states: Uint8Array, scale: Scale): Uint8Array {
  const result = new Uint8Array(values.length);
  for (let i = 0; i < values.length; i++) {
    const value = values[i] as number;
    if (states[i] === NONFINITE) result[i] = NONFINITE_LEVEL;
    else if (states[i] === MEASURED) result[i] = Number.isNaN(value) ? EMPTY_LEVEL : level(position(scale, value));
  }
  return result;
}

/** Returns the palette entry of a place on the ramp. */
export function level(place: number): number {
  return FIRST_LEVEL + Math.round(place * (RAMP_LEVELS - 1));
}

/** Returns the colour at `place` (0 to 1) of a ramp; stops are evenly spaced. */
export function rampColour(ramp: readonly RampStop[], place: number): Rgb {
  const along = Math.min(1, Math.max(0, place)) * (ramp.length - 1);
  const index = Math.min(ramp.length - 2, Math.floor(along));
  const from = oklab(ramp[index] as RampStop);
  const to = oklab(ramp[index + 1] as RampStop);
  return srgb(from.map((value, i) => value + ((to[i] as number) - value) * (along - index)) as unknown as Rgb);
}

/** Returns the ramp as a CSS gradient from bottom (small) to top (large). */
export function rampGradient(ramp: readonly RampStop[]): string {
  const stops = Array.from({ length: 17 }, (_, i) => `rgb(${rampColour(ramp, i / 16).join(" ")})`);
  return `linear-gradient(to top, ${stops.join(", ")})`;
}

/** Returns the colour of each palette entry that lies on the ramp; the others are black. */
export function rampPalette(ramp: readonly RampStop[]): Rgb[] {
  return Array.from({ length: LEVELS }, (_, entry) =>
    entry < FIRST_LEVEL ? [0, 0, 0] : rampColour(ramp, (entry - FIRST_LEVEL) / (RAMP_LEVELS - 1)),
  );
}

/** Returns #rrggbb as numbers from 0 to 255. */
export function parseHex(hex: string): Rgb {
  const value = Number.parseInt(hex.slice(1), 16);
  return [(value >> 16) & 255, (value >> 8) & 255, value & 255];
}

function oklab([lightness, chroma, hue]: RampStop): Rgb {
  const angle = (hue * Math.PI) / 180;
  return [lightness, chroma * Math.cos(angle), chroma * Math.sin(angle)];
}

/** OKLab to sRGB, after Björn Ottosson, "A perceptual color space for image processing" (2020). */
function srgb([lightness, a, b]: Rgb): Rgb {
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    companded(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s),
    companded(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s),
    companded(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s),
  ];
}

function companded(linear: number): number {
  const clipped = Math.min(1, Math.max(0, linear));
  return Math.round(255 * (clipped <= 0.0031308 ? 12.92 * clipped : 1.055 * clipped ** (1 / 2.4) - 0.055));
}
