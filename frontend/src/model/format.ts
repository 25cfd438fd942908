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

/** Returns a figure of a table, in its column's unit: three digits, and at most three after the point. */
export function formatFixed(value: number | null | undefined): string {
  if (value === null || value === undefined || Number.isNaN(value)) return NOT_AVAILABLE;
  if (value === 0) return "0";
  if (value < 0.0005) return "<0.001";
  if (value < 0.0995) return value.toFixed(3);
  return value >= 999.5 ? formatCount(value) : value.toPrecision(3);
}

const TIME_UNITS = [
  { name: "s", size: 1 },
  { name: "ms", size: 1e-3 },
  { name: "µs", size: 1e-6 },
];

/** Returns a time in seconds with a unit that suits it: 2.41 ms. */
export function formatDuration(seconds: number | null | undefined): string {
  return withUnit(seconds, TIME_UNITS);
}

const BYTE_UNITS = [
  { name: "TiB", size: 2 ** 40 },
  { name: "GiB", size: 2 ** 30 },
  { name: "MiB", size: 2 ** 20 },
  { name: "KiB", size: 2 ** 10 },
  { name: "B", size: 1 },
];

/** Returns a size in bytes with a unit that suits it: 12.3 MiB. */
export function formatBytes(bytes: number | null | undefined): string {
  return withUnit(bytes, BYTE_UNITS);
}

const FLOP_UNITS = [
  { name: "TFLOP", size: 1e12 },
  { name: "GFLOP", size: 1e9 },
  { name: "MFLOP", size: 1e6 },
  { name: "kFLOP", size: 1e3 },
  { name: "FLOP", size: 1 },
];

/** Returns a number of floating-point operations with a unit that suits it: 21.2 MFLOP. */
export function formatFlops(flops: number | null | undefined): string {
  return withUnit(flops, FLOP_UNITS);
}

interface Unit {
  readonly name: string;
  readonly size: number;
}

/** Returns `value` in the largest of the units, which descend, that it reaches; below all of them, in the last. */
function withUnit(value: number | null | undefined, units: readonly Unit[]): string {
  if (value === null || value === undefined || Number.isNaN(value)) return NOT_AVAILABLE;
  if (value === 0) return `0${THIN_SPACE}${units.find(({ size }) => size === 1)?.name}`;
  const magnitude = Math.abs(value);
  // What would be rounded up to 1000 belongs to the next unit.
  const unit = units.find(({ size }) => magnitude >= size * 0.9995) ?? (units[units.length - 1] as Unit);
  return `${value < 0 ? MINUS : ""}${digits(magnitude / unit.size)}${THIN_SPACE}${unit.name}`;
}

/** Returns times of one axis: in one unit, with as few digits as tell them apart. */
export function formatDurations(seconds: readonly number[]): string[] {
  return alike(seconds, TIME_UNITS);
}

/** Returns sizes of one axis: in one unit, with as few digits as tell them apart. */
export function formatSizes(bytes: readonly number[]): string[] {
  return alike(bytes, BYTE_UNITS);
}

function alike(values: readonly number[], units: readonly Unit[]): string[] {
  const MOST_DIGITS = 4;
  const most = values.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  const unit = units.find(({ size }) => most >= size * 0.9995) ?? (units[units.length - 1] as Unit);
  const texts = (places: number) => values.map((value) => String(Number((value / unit.size).toFixed(places))));
  let places = 0;
  while (places < MOST_DIGITS && new Set(texts(places)).size < new Set(values).size) places++;
  return texts(places).map((text) => `${text}${THIN_SPACE}${unit.name}`);
}

/** Returns three significant digits without zeros that say nothing: 12.3, 2.4, 1 020. */
function digits(value: number): string {
  return value >= 999.5 ? formatCount(value) : String(Number(value.toPrecision(3)));
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

/** Returns tensors with all their axes and types: "64×784 float32, 64 int64". */
export function formatTensors(shapes: ReadonlyArray<ReadonlyArray<number | null>>, types: readonly string[]): string {
  const texts = shapes.map((shape, i) => {
    const extents = shape.length === 0 ? "scalar" : shape.map((extent) => extent ?? "?").join("×");
    return types[i] ? `${extents} ${types[i]}` : extents;
  });
  return texts.length === 0 ? NOT_AVAILABLE : texts.join(", ");
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
