/** Which steps are measured and what that costs, in words. */

import type { Session } from "../api/types";
import { formatCount, formatDuration, formatShare, NOT_AVAILABLE } from "./format";

type Sampled = Pick<Session, "every" | "overhead_budget" | "steps">;

/** A longer list of steps is cut off. */
const MOST_STEPS = 8;

/** Returns "budget 2 %", "every 10 steps" or "steps 3, 7, 9". */
export function samplingText({ every, overhead_budget, steps }: Sampled): string {
  if (steps !== null) return listText(steps);
  if (every !== null) return every === 1 ? "every step" : `every ${formatCount(every)} steps`;
  return overhead_budget === null ? NOT_AVAILABLE : `budget ${formatShare(overhead_budget)}`;
}

function listText(steps: readonly number[]): string {
  if (steps.length === 0) return "no step";
  const shown = steps.slice(0, MOST_STEPS).map(formatCount).join(", ");
  const more = steps.length > MOST_STEPS ? `, … (${formatCount(steps.length)} in all)` : "";
  return `${steps.length === 1 ? "step" : "steps"} ${shown}${more}`;
}

export interface CostText {
  readonly cost: string;
  /** " of 2 %", or "" where there is no budget. */
  readonly budget: string;
  readonly isOver: boolean;
  /** What the figure means, or why there is none. */
  readonly why: string;
}

/** Returns what the header says of the cost of watching. */
export function costText(
  session: Pick<Session, "overhead" | "overhead_budget" | "status" | "tracing_seconds"> | null,
): CostText {
  const overhead = session?.overhead ?? null;
  const budget = session?.overhead_budget ?? null;
  return {
    cost: formatShare(overhead),
    budget: budget === null ? "" : ` of ${formatShare(budget)}`,
    isOver: overhead !== null && budget !== null && overhead > budget,
    why:
      (overhead === null ? whyUnknown(session) : "Share of the plain training time that watching has cost so far.") +
      tracingText(session?.tracing_seconds ?? null),
  };
}

function tracingText(seconds: number | null): string {
  if (seconds === null) return "";
  return ` Tracing and compiling the measured step took ${formatDuration(seconds)}, once, which is not in it.`;
}

function whyUnknown(session: Pick<Session, "status"> | null): string {
  if (session?.status === "live") return "n/a: what watching costs was not measured yet.";
  return "n/a: this run did not measure what watching costs.";
}
