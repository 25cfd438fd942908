/** What went wrong, in words: what was found first, where, and what followed. */

import type { Anomaly, Episode, LayerTable } from "../api/types";
import { formatCount, formatPlural } from "./format";

/** Returns "Step 137: NaN first in 0.2 (Linear_2), forward". */
export function episodeTitle(episode: Episode, table: LayerTable | null): string {
  const [first] = episode.anomalies;
  const step = `Step ${formatCount(episode.first_step)}`;
  return first ? `${step}: ${valuesText(first)} first in ${placeText(first, table)}` : `${step}: not finite`;
}

/** Returns how many of the first tensor's values were not finite, and what such a place is; "" where neither is told. */
export function firstText(anomaly: Anomaly): string {
  const counts = (["nan", "posinf", "neginf"] as const)
    .filter((key) => (anomaly[key] ?? 0) > 0)
    .map((key) => `${formatCount(anomaly[key] as number)} ${{ nan: "NaN", posinf: "+Inf", neginf: "−Inf" }[key]}`);
  return `${counts.length > 0 ? counts.join(", ") : "Values that are not finite"} ${EXPLANATIONS[anomaly.place]}.`;
}

const EXPLANATIONS: Readonly<Record<Anomaly["place"], string>> = {
  forward: "in the layer's output",
  loss: "in what training makes smaller",
  backward: "in the gradient of the loss by the layer's output",
  parameter: "in the gradient of the loss by the parameter",
};

/** Returns what followed within the step, in order, the first `most` of it. */
export function followedText(episode: Episode, table: LayerTable | null, most: number): string {
  const rest = episode.anomalies.slice(1);
  if (rest.length === 0) return "";
  const more = rest.length > most ? `; and ${formatCount(rest.length - most)} more` : "";
  return `${rest
    .slice(0, most)
    .map((anomaly) => placeText(anomaly, table))
    .join("; ")}${more}`;
}

/** Returns how it went on after the step, or "". */
export function laterText({ last_step, steps }: Episode): string {
  if (steps <= 1) return "";
  return `Not finite in ${formatPlural(steps - 1, "later step")} either, up to step ${formatCount(last_step)}.`;
}

/** Returns "0.2 (Linear_2), forward", "the loss", or "the gradient of weight in 0.2 (Linear_2)". */
export function placeText(anomaly: Anomaly, table: LayerTable | null): string {
  if (anomaly.place === "loss") return "the loss";
  const layer = nameOf(anomaly.layer, table);
  if (anomaly.place !== "parameter") return `${layer}, ${anomaly.place}`;
  const parameter = anomaly.parameter === null ? undefined : table?.parameters[anomaly.parameter];
  return `the gradient of ${parameter?.name ?? "a parameter"} in ${layer}`;
}

function nameOf(number: number | null, table: LayerTable | null): string {
  const layer = number === null ? undefined : table?.layers[number];
  if (layer === undefined) return number === null ? "the model" : `layer ${number}`;
  return layer.own_name && layer.own_name !== layer.name ? `${layer.own_name} (${layer.name})` : layer.name;
}

function valuesText({ nan, posinf, neginf }: Anomaly): string {
  if (nan === null && posinf === null && neginf === null) return "NaN or Inf";
  const infinite = (posinf ?? 0) + (neginf ?? 0) > 0;
  return (nan ?? 0) > 0 ? (infinite ? "NaN and Inf" : "NaN") : infinite ? "Inf" : "NaN or Inf";
}

/** Returns the words for steps that the gradient scaler skipped. */
export function skippedText(steps: number, last: number): string {
  const which =
    steps === 1 ? `step ${formatCount(last)}` : `${formatPlural(steps, "step")}, the last at ${formatCount(last)}`;
  return `The gradient scaler skipped ${which}: gradients were not finite at its scale, and no weight was changed.`;
}
