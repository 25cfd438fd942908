/** The order of rows in a table. */

/** Which column a table is sorted by. */
export interface Sorting<Key extends string> {
  readonly key: Key;
  readonly descending: boolean;
}

/** Returns the rows sorted by `figureOf`; what was not measured comes last either way, equals stay in execution order. */
export function sorted<Row extends { readonly index: number }>(
  rows: readonly Row[],
  descending: boolean,
  figureOf: (row: Row) => number | string | null,
): Row[] {
  const missing = (value: number | string | null) => value === null || Number.isNaN(value);
  return [...rows].sort((a, b) => {
    const left = figureOf(a);
    const right = figureOf(b);
    if (missing(left) || missing(right)) return Number(missing(left)) - Number(missing(right)) || a.index - b.index;
    const order = (left as number) < (right as number) ? -1 : (left as number) > (right as number) ? 1 : 0;
    return (descending ? -order : order) || a.index - b.index;
  });
}

/** Returns the sorting after a press on the head of a column: the other way round, or by it, its usual way first. */
export function pressed<Key extends string>(now: Sorting<Key>, key: Key, ascendingFirst: boolean): Sorting<Key> {
  return { key, descending: now.key === key ? !now.descending : !ascendingFirst };
}
