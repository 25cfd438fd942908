/** Ticks of an axis: round numbers, not too many. */

/** Returns round values within [low, high], about `wanted` of them; steps are whole, so never closer than 1. */
export function stepTicks(low: number, high: number, wanted: number): number[] {
  return multiples(low, high, Math.max(1, roundSpacing((high - low) / Math.max(1, wanted))));
}

/** Returns round values within [low, high], however small they are, about `wanted` of them. */
export function roundTicks(low: number, high: number, wanted: number): number[] {
  return high > low ? multiples(low, high, roundSpacing((high - low) / Math.max(1, wanted))) : [];
}

/** Returns sizes within [low, high] that are round in units of 1024: multiples of a power of two. */
export function byteTicks(low: number, high: number, wanted: number): number[] {
  if (!(high > low)) return [];
  return multiples(low, high, 2 ** Math.ceil(Math.log2((high - low) / Math.max(1, wanted))));
}

/** Returns the least of 1, 2 and 5 times a power of ten that is at least `between`. */
function roundSpacing(between: number): number {
  const power = 10 ** Math.floor(Math.log10(between));
  return ([1, 2, 5].find((candidate) => candidate * power >= between) ?? 10) * power;
}

function multiples(low: number, high: number, spacing: number): number[] {
  const first = Math.ceil(low / spacing);
  // Counted, not summed up: a sum of rounded spacings would drift.
  const count = Math.max(0, Math.floor(high / spacing + 1e-9) - first + 1);
  return Array.from({ length: count }, (_, i) => (first + i) * spacing);
}

/** Returns whole exponents within [low, high], every second or third where there are more than `most`. */
export function exponentTicks(low: number, high: number, most: number): number[] {
  const spacing = Math.max(1, Math.ceil((high - low + 1) / most));
  const ticks: number[] = [];
  for (let tick = high; tick >= low; tick -= spacing) ticks.push(tick);
  return ticks.reverse();
}

/** Returns `count` evenly spaced values from low to high, both included. */
export function evenTicks(low: number, high: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => low + ((high - low) * i) / (count - 1));
}
