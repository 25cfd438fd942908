/** Numbers and names as people read them. */

const THIN_SPACE = "\u202f";
const MINUS = "\u2212";
export const NOT_AVAILABLE = "n/a";

/** Returns a whole number with thin spaces between thousands: 2 359 360. */
export function formatCount(value: number): string {
  return String(Math.round(value))
    .replace(/\B(?=(\d{3})+(?!\d))/g, THIN_SPACE)
    .replace("-", MINUS);
}

/** Returns a measured value with three significant digits, or in the form 3.9e-8 where it is small or large. */
export function formatValue(value: number | null | undefined): string {
  if (value === null || value === undefined) return NOT_AVAILABLE;
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "+Inf" : `${MINUS}Inf`;
  if (value === 0) return "0";
  const magnitude = Math.abs(value);
  const text = magnitude >= 0.0995 && magnitude < 9999.5 ? plain(magnitude) : scientific(magnitude);
  return value < 0 ? MINUS + text : text;
}

/** Returns a round value, as at an axis, without digits that say nothing. */
export function formatRound(value: number): string {
  const magnitude = Math.abs(value);
  if (magnitude !== 0 && (magnitude < 1e-3 || magnitude >= 1e4))
    return value < 0 ? MINUS + exponential(value) : exponential(value);
  return String(Number(value.toPrecision(3))).replace("-", MINUS);
}

function exponential(value: number): string {
  return Math.abs(Number(value.toPrecision(3)))
    .toExponential()
    .replace("e+", "e");
}

function plain(magnitude: number): string {
  return magnitude >= 999.5 ? formatCount(magnitude) : magnitude.toPrecision(3);
}

function scientific(magnitude: number): string {
  return magnitude.toExponential(1).replace("e+", "e");
}

/** Returns a share (0 to 1) in percent, never 0 for what is not none and never 100 for what is not all. */
export function formatShare(share: number | null | undefined): string {
  if (share === null || share === undefined || Number.isNaN(share)) return NOT_AVAILABLE;
  const percent = share * 100;
  if (percent === 0) return `0${THIN_SPACE}%`;
  if (percent < 0.1) return `<${THIN_SPACE}0.1${THIN_SPACE}%`;
  if (percent > 99.9 && percent < 100) return `>${THIN_SPACE}99.9${THIN_SPACE}%`;
  return `${Number(percent.toFixed(percent < 99.5 && percent >= 10 ? 0 : 1))}${THIN_SPACE}%`;
}

/** Returns a shape without its batch axis: 26×26×32. */
export function formatShape(shape: ReadonlyArray<number | null>): string {
  const [, ...rest] = shape;
  return rest.length === 0 ? "scalar" : rest.map((extent) => extent ?? "?").join("×");
}

/** Returns "step 40" or "steps 40 to 49". */
export function formatSteps(first: number, last: number): string {
  return first === last ? `step ${formatCount(first)}` : `steps ${formatCount(first)} to ${formatCount(last)}`;
}

/** Returns a power of two as text: 2^-14, with the digits raised. */
export function formatPowerOfTwo(exponent: number): string {
  const raised = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const digits = [...String(Math.abs(exponent))].map((digit) => raised[Number(digit)]).join("");
  return `2${exponent < 0 ? "⁻" : ""}${digits}`;
}

/** Returns the moment in the reader's own time zone, to the second. */
export function formatMoment(seconds: number): string {
  return new Date(seconds * 1000).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });
}

/** Returns "1 layer", "3 layers". */
export function formatPlural(count: number, noun: string): string {
  return `${formatCount(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/** Shortens in the middle, where long names differ least: "encoder…linear1". */
export function elide(text: string, most: number): string {
  if (text.length <= most) return text;
  const head = Math.floor((most - 1) / 3);
  return `${text.slice(0, head)}…${text.slice(text.length - (most - 1 - head))}`;
}
