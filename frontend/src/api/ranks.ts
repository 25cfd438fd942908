/** The ranks of a distributed job: what the plugin answers about all of them together. */

import { arrayOf } from "./binary";
import { allowedWidth, binary, columnsOf, json, url } from "./client";
import type { Columns, Status, StepRange } from "./types";

/** A number, or the name of one that is not finite: "NaN", "Infinity", "-Infinity". */
export type Figure = number | string;

export interface RankFigure {
  readonly step: number;
  readonly value: Figure;
  /** How far from the median of the ranks at that step; null where no other rank has the step. */
  readonly from_median: Figure | null;
}

export interface Rank {
  readonly rank: number;
  readonly status: Status;
  readonly last_step: number | null;
  readonly last_written: number | null;
  readonly ended_because: string;
  readonly figures: Readonly<Record<string, RankFigure>>;
}

/** A rank that is not as the others; null of two, of which nobody can tell which one is off. */
export interface Departure {
  readonly scalar: string;
  readonly rank: number | null;
  readonly step: number;
  readonly value: Figure;
  /** The least and the greatest of the others; of two ranks, of both. */
  readonly low: Figure;
  readonly high: Figure;
}

export interface Ranks {
  readonly world_size: number;
  /** Ranks that recorded nothing. */
  readonly missing: readonly number[];
  /** Whether each rank measured its own part of the parameters. */
  readonly sharded: boolean;
  readonly scalars: readonly string[];
  readonly ranks: readonly Rank[];
  readonly departures: readonly Departure[];
}

/** One figure of every rank over the steps; `minimum`, `maximum` and `state` are (ranks, columns). */
export interface RankSeries extends Columns {
  readonly scalar: string;
  readonly ranks: readonly number[];
  readonly minimum: Float32Array;
  readonly maximum: Float32Array;
  readonly state: Uint8Array;
  /** Over all ranks. */
  readonly low: Float32Array;
  readonly high: Float32Array;
}

export interface RankSeriesRequest {
  readonly run: string;
  readonly scalar: string;
  readonly width: number;
  readonly range: StepRange | null;
}

/** Returns the ranks as they were at `step`, or as they are now where that is null. */
export function fetchRanks(run: string, step: number | null, signal: AbortSignal): Promise<Ranks> {
  return json(url("ranks", { run, step: step ?? undefined }), signal);
}

export async function fetchRankSeries(wanted: RankSeriesRequest, signal: AbortSignal): Promise<RankSeries> {
  const { run, scalar, range } = wanted;
  const steps = { width: allowedWidth(wanted.width), first: range?.first, last: range?.last };
  const decoded = await binary(url("rank_series", { run, scalar, ...steps }), signal);
  return {
    ...columnsOf(decoded),
    scalar,
    ranks: decoded.head.ranks as number[],
    minimum: arrayOf(decoded, "minimum", Float32Array),
    maximum: arrayOf(decoded, "maximum", Float32Array),
    state: arrayOf(decoded, "state", Uint8Array),
    low: arrayOf(decoded, "low", Float32Array),
    high: arrayOf(decoded, "high", Float32Array),
  };
}
