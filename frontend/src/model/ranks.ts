/** The ranks of a distributed job in words, in a table, and as lines. */

import type { Departure, Figure, Rank, RankFigure, RankSeries, Ranks } from "../api/ranks";
import { NOT_MEASURED, type Series } from "../api/types";
import { formatCount, formatPlural, formatValue, NOT_AVAILABLE } from "./format";

/** Something that a reader should know of the ranks, as a card. */
export interface Remark {
  readonly kind: "critical" | "warning" | "info";
  readonly title: string;
  readonly text: string;
}

/** More ranks than this are not named one by one. */
const MOST_NAMED = 6;
/** With more ranks than this, lines would hide one another: then only those that depart have one. */
const MOST_LINES = 8;
/** Figures that are shown first, and those that say nothing of the training. */
const FIRST = ["loss", "gradient_norm"];
const NOT_SHOWN: ReadonlySet<string> = new Set(["overhead", "skipped", "step_seconds", "tracing_seconds"]);
const MOST_FIGURES = 4;
/** The line, or rather band, from the least to the greatest of all ranks. */
export const ALL_RANKS = "all ranks";

const ENDED_WELL: ReadonlySet<string> = new Set(["live", "finished"]);

/** Returns "rank 2", "ranks 0, 1 and 4", "ranks 0, 1, 2, 3, 4, 5 and 10 more". */
export function namedRanks(ranks: readonly number[]): string {
  if (ranks.length === 1) return `rank ${ranks[0]}`;
  const more = ranks.length > MOST_NAMED + 1 ? ranks.length - MOST_NAMED : 0;
  const named = more > 0 ? ranks.slice(0, MOST_NAMED) : ranks.slice(0, -1);
  return `ranks ${named.join(", ")} and ${more > 0 ? `${formatCount(more)} more` : ranks.at(-1)}`;
}

/** Returns the figures that are shown, the loss first. */
export function shownFigures(scalars: readonly string[]): string[] {
  const others = scalars.filter((name) => !FIRST.includes(name) && !NOT_SHOWN.has(name));
  return [...FIRST.filter((name) => scalars.includes(name)), ...others].slice(0, MOST_FIGURES);
}

export function figureLabel(scalar: string): string {
  return scalar.replaceAll("_", " ");
}

function figureText(figure: Figure): string {
  return typeof figure === "number" ? formatValue(figure) : figure;
}

function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Returns what should be known of the ranks: which depart, which are lost or failed, which recorded nothing. */
export function remarks(ranks: Ranks): Remark[] {
  return [...ranks.departures.map(departureRemark), ...endings(ranks), ...missing(ranks), ...sharded(ranks)];
}

function departureRemark({ scalar, rank, step, value, low, high }: Departure): Remark {
  const name = figureLabel(scalar);
  const at = `at step ${formatCount(step)}`;
  if (rank === null) {
    const text = `Their ${name} is ${figureText(low)} and ${figureText(high)} ${at}. Of two nobody can tell which is off.`;
    return { kind: "warning", title: "The two ranks differ", text };
  }
  const others = low === high ? figureText(low) : `${figureText(low)} to ${figureText(high)}`;
  const text = `Its ${name} is ${figureText(value)}, the others' ${others} ${at}.`;
  return { kind: "warning", title: `Rank ${rank} differs`, text };
}

function endings({ ranks }: Ranks): Remark[] {
  const ended = (status: string) => ranks.filter((rank) => rank.status === status);
  const lost = ended("lost");
  const failed = ended("failed");
  const last = lost.map(({ rank, last_step: step }) =>
    step === null ? `rank ${rank} recorded no step` : `rank ${rank} recorded up to step ${formatCount(step)}`,
  );
  return [
    ...(lost.length > 0
      ? [
          {
            kind: "warning" as const,
            title: `${capital(namedRanks(lost.map(({ rank }) => rank)))} ${lost.length > 1 ? "are" : "is"} lost`,
            text: `Not heard of for 15 seconds, without a word of the end: ${last.slice(0, MOST_NAMED).join(", ")}.`,
          },
        ]
      : []),
    ...(failed.length > 0
      ? [
          {
            kind: "warning" as const,
            title: `${capital(namedRanks(failed.map(({ rank }) => rank)))} failed`,
            text: failed[0]?.ended_because ?? "",
          },
        ]
      : []),
  ];
}

function missing({ missing: ranks, world_size: size }: Ranks): Remark[] {
  if (ranks.length === 0) return [];
  const text = `The job has ${formatPlural(size, "rank")}. One that is not watched records nothing, nor does one that died at once.`;
  return [{ kind: "info", title: `${capital(namedRanks(ranks))} recorded nothing`, text }];
}

function sharded({ sharded: is }: Ranks): Remark[] {
  const text =
    "Each rank measured its own part of the parameters: gradient norms differ from rank to rank, as they should.";
  return is ? [{ kind: "info", title: "The parameters are sharded", text }] : [];
}

/** A rank as a row of the table. */
export interface RankRow {
  readonly rank: number;
  readonly status: string;
  readonly lastStep: string;
  readonly isBad: boolean;
  /** Per figure that is shown: its value, how far it is from the median of the ranks, and at which step. */
  readonly cells: ReadonlyArray<{ readonly value: string; readonly distance: string; readonly hint: string }>;
}

export function rankRows(ranks: Ranks, figures: readonly string[]): RankRow[] {
  const departing = departingRanks(ranks);
  return ranks.ranks.map((rank) => ({
    rank: rank.rank,
    status: rank.status,
    lastStep: rank.last_step === null ? NOT_AVAILABLE : formatCount(rank.last_step),
    isBad: departing.has(rank.rank) || !ENDED_WELL.has(rank.status),
    cells: figures.map((name) => cell(rank, rank.figures[name])),
  }));
}

function cell(rank: Rank, figure: RankFigure | undefined) {
  if (figure === undefined)
    return { value: NOT_AVAILABLE, distance: "", hint: `rank ${rank.rank} has not recorded it` };
  return {
    value: figureText(figure.value),
    distance: distanceText(figure.from_median),
    hint: `at step ${formatCount(figure.step)}${figure.from_median === null ? ", which no other rank has" : ""}`,
  };
}

function distanceText(distance: Figure | null): string {
  if (distance === null) return NOT_AVAILABLE;
  const text = figureText(distance);
  return typeof distance === "number" && distance > 0 ? `+${text}` : text;
}

function departingRanks({ departures }: Ranks): ReadonlySet<number> {
  return new Set(departures.flatMap(({ rank }) => (rank === null ? [] : [rank])));
}

/**
 * Returns one figure as lines, in the order in which a chart draws its own: the rank that departs most, or the first one,
 * stands out; then come the band of all ranks, and the others, of many those alone that depart.
 */
export function rankLines(series: RankSeries, ranks: Ranks): Series {
  const columns = series.firstStep.length;
  const departing = departingRanks(ranks);
  const off = ranks.departures.find(({ scalar, rank }) => scalar === series.scalar && rank !== null)?.rank;
  const shown = series.ranks.filter((rank) => series.ranks.length <= MOST_LINES || departing.has(rank));
  const first = shown.filter((rank) => rank === (off ?? shown[0]));
  const others = shown.filter((rank) => !first.includes(rank));
  const joined = (all: Float32Array, each: Float32Array) => {
    const of = (rank: number) => {
      const row = series.ranks.indexOf(rank);
      return [...each.subarray(row * columns, (row + 1) * columns)];
    };
    return Float32Array.from([...first.flatMap(of), ...all, ...others.flatMap(of)]);
  };
  const name = (rank: number) => `rank ${rank}`;
  return {
    firstStep: series.firstStep,
    lastStep: series.lastStep,
    statistics: [...first.map(name), ALL_RANKS, ...others.map(name)],
    minimum: joined(series.low, series.minimum),
    maximum: joined(series.high, series.maximum),
    state: Uint8Array.from(series.firstStep, (_, column) =>
      Math.max(NOT_MEASURED, ...series.ranks.map((_rank, row) => series.state[row * columns + column] ?? NOT_MEASURED)),
    ),
  };
}
