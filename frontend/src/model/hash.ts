/** Deep links: the viewer's state in the address of TensorBoard's own page. */

export const PREFIX = "p.neuraldbg.";

/** In the order of the rail. */
export const VIEWS = ["overview", "trace", "gradients", "activations", "memory"] as const;
export type View = (typeof VIEWS)[number];

export const VIEW_TITLES: Readonly<Record<View, string>> = {
  overview: "Overview",
  trace: "Execution trace",
  gradients: "Gradients",
  activations: "Activations",
  memory: "Memory & FLOPs",
};

/** What a link carries; null where it says nothing. */
export interface Link {
  readonly view: View | null;
  readonly run: string | null;
  /** The layer's canonical name. */
  readonly row: string | null;
  readonly step: number | null;
}

export const LINK_KEYS = ["view", "run", "row", "step"] as const;

/** Reads `#neuraldbg&p.neuraldbg.view=gradients&...`; what is malformed counts as not said. */
export function parseLink(hash: string): Link {
  const said = new Map<string, string>();
  for (const token of hash.replace(/^#/, "").split("&")) {
    const equals = token.indexOf("=");
    if (equals < 0 || !token.startsWith(PREFIX)) continue;
    const value = decoded(token.slice(equals + 1));
    if (value) said.set(token.slice(PREFIX.length, equals), value);
  }
  const view = VIEWS.find((name) => name === said.get("view")) ?? null;
  const step = said.get("step") ?? "";
  return {
    view,
    run: said.get("run") ?? null,
    row: said.get("row") ?? null,
    step: /^\d+$/.test(step) ? Number(step) : null,
  };
}

/** Returns `hash` with the link's values in place of those it had; other tokens stay as they are. */
export function writeLink(hash: string, link: Link): string {
  const kept = hash
    .replace(/^#/, "")
    .split("&")
    .filter((token) => token !== "" && !token.startsWith(PREFIX));
  if (kept.length === 0) kept.push("neuraldbg");
  const said = LINK_KEYS.filter((key) => link[key] !== null).map(
    (key) => `${PREFIX}${key}=${encodeURIComponent(String(link[key]))}`,
  );
  return `#${[...kept, ...said].join("&")}`;
}

function decoded(value: string): string | null {
  try {
    return decodeURIComponent(value);
  } catch {
    return null;
  }
}
