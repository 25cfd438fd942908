/** Ticks of an axis: round numbers, not too many. */

/** Returns round values within [low, high], about `wanted` of them; steps are whole, so never closer than 1. */
export function stepTicks(low: number, high: number, wanted: number): number[] {
  const between = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(Math.max(between, 1)));
  const factor = [1, 2, 5, 10].find((candidate) => candidate * power >= between) ?? 10;
  const spacing = Math.max(1, factor * power);
  const ticks: number[] = [];
  for (let tick = Math.ceil(low / spacing) * spacing; tick <= high; tick += spacing) ticks.push(tick);
  return ticks;
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
