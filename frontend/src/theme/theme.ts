/** The colours of the page and of its pictures, as one record per theme. */

/** A colour of a ramp in OKLCH: lightness 0 to 1, chroma, hue in degrees. */
export type RampStop = readonly [lightness: number, chroma: number, hue: number];

export interface Theme {
  readonly name: "light" | "dark";
  readonly ground: string;
  readonly panel: string;
  readonly hover: string;
  readonly line: string;
  readonly text: string;
  readonly dim: string;
  readonly accent: string;
  readonly critical: string;
  readonly warning: string;
  readonly info: string;
  readonly ok: string;
  /** NaN and Inf, and nothing else: as a word, and as a cell, which must stand out from every colour of the ramp. */
  readonly nonfinite: string;
  readonly nonfiniteCell: string;
  readonly negative: string;
  readonly zero: string;
  readonly positive: string;
  readonly hatch: string;
  /** From the smallest magnitude, close to the ground, to the largest; equal steps in lightness. */
  readonly ramp: readonly RampStop[];
  /** Lines of a chart, in order. */
  readonly lines: readonly string[];
  /** Phases of a step, as what lies under the text of their spans: forward, backward, optimizer, the step itself. */
  readonly phases: readonly [string, string, string, string];
}

export const LIGHT: Theme = {
  name: "light",
  ground: "#ffffff",
  panel: "#fafafb",
  hover: "#f0f2f5",
  line: "#e0e3e7",
  text: "#1f2328",
  dim: "#5c666e",
  accent: "#f57c00",
  critical: "#c62828",
  warning: "#9a5b00",
  info: "#1565c0",
  ok: "#2e7d32",
  nonfinite: "#c6009c",
  nonfiniteCell: "#ff00cc",
  negative: "#1e88e5",
  zero: "#9aa4ab",
  positive: "#43a047",
  hatch: "#dfe3e8",
  ramp: [
    [0.97, 0.035, 95],
    [0.85, 0.12, 80],
    [0.72, 0.16, 55],
    [0.59, 0.18, 33],
    [0.46, 0.15, 15],
    [0.33, 0.12, 320],
    [0.2, 0.08, 295],
  ],
  lines: ["#e66f00", "#5c666e", "#1565c0", "#2e7d32"],
  phases: ["#90caf9", "#ffcc80", "#a5d6a7", "#e3e6ea"],
};

export const DARK: Theme = {
  name: "dark",
  ground: "#303030",
  panel: "#383838",
  hover: "#3e3e3e",
  line: "#4b4f54",
  text: "#eceff1",
  dim: "#b0b8be",
  accent: "#f57c00",
  critical: "#ff978e",
  warning: "#ffb74d",
  info: "#8ab8ff",
  ok: "#81c784",
  nonfinite: "#ff80e0",
  nonfiniteCell: "#ff4fd8",
  negative: "#42a5f5",
  zero: "#9aa4ab",
  positive: "#66bb6a",
  hatch: "#44484c",
  ramp: [
    [0.2, 0.09, 290],
    [0.33, 0.13, 310],
    [0.46, 0.15, 10],
    [0.59, 0.17, 33],
    [0.72, 0.16, 58],
    [0.85, 0.14, 82],
    [0.97, 0.08, 103],
  ],
  lines: ["#ff9130", "#b0b8be", "#8ab8ff", "#81c784"],
  phases: ["#31639c", "#955200", "#357a3b", "#4a4e53"],
};

const VARIABLES = [
  "ground",
  "panel",
  "hover",
  "line",
  "text",
  "dim",
  "accent",
  "critical",
  "warning",
  "info",
  "ok",
  "nonfinite",
  "nonfiniteCell",
  "negative",
  "zero",
  "positive",
  "hatch",
] as const satisfies ReadonlyArray<keyof Theme>;

/** Returns the theme as CSS custom properties: `--ground`, `--panel`, ... */
export function cssVariables(theme: Theme): Record<string, string> {
  const colours = Object.fromEntries(VARIABLES.map((name) => [`--${name}`, theme[name]]));
  return { ...colours, "color-scheme": theme.name };
}
