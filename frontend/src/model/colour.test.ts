import { describe, expect, it } from "vitest";
import { DARK, LIGHT } from "../theme/theme";
import {
  decades,
  EMPTY_LEVEL,
  FIRST_LEVEL,
  LEVELS,
  levels,
  NONFINITE_LEVEL,
  parseHex,
  position,
  type Rgb,
  rampColour,
  span,
  UNMEASURED_LEVEL,
} from "./colour";

/** Relative luminance (WCAG 2.2), an independent measure of how light a colour is. */
function luminance(rgb: Rgb): number {
  const [red, green, blue] = rgb.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  }) as [number, number, number];
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}

describe("scales", () => {
  it("span whole decades of what is above zero", () => {
    expect(decades([3e-5, 0, Number.NaN, 0.02])).toEqual({ log: true, low: -5, high: -1 });
    expect(decades([0.5])).toEqual({ log: true, low: -1, high: 0 });
    expect(decades([1])).toEqual({ log: true, low: -1, high: 0 });
  });

  it("stand still where there is nothing, and are no wider than twelve decades", () => {
    expect(decades([])).toEqual({ log: true, low: -1, high: 0 });
    expect(decades([0, Number.NaN])).toEqual({ log: true, low: -1, high: 0 });
    expect(decades([1e-38, 1])).toEqual({ log: true, low: -12, high: 0 });
  });

  it("are linear between the least and the greatest value", () => {
    expect(span([-2, Number.NaN, 3])).toEqual({ log: false, low: -2, high: 3 });
    expect(span([4])).toEqual({ log: false, low: 3.5, high: 4.5 });
    expect(span([Number.NaN])).toEqual({ log: false, low: 0, high: 1 });
  });

  it("place values, those beyond at the ends, zero at the lower one", () => {
    const scale = { log: true, low: -4, high: 0 };
    expect(position(scale, 1e-2)).toBeCloseTo(0.5);
    expect(position(scale, 1e-9)).toBe(0);
    expect(position(scale, 0)).toBe(0);
    expect(position(scale, 100)).toBe(1);
  });
});

describe("levels", () => {
  it("tell not measured, not finite and nothing finite from each other", () => {
    const values = Float32Array.of(1, Number.NaN, 1, 1e-4, Number.NaN, 1);
    const states = Uint8Array.of(1, 0, 2, 1, 1, 0);
    expect(levels(values, states, { log: true, low: -4, high: 0 })).toEqual(
      Uint8Array.of(LEVELS - 1, UNMEASURED_LEVEL, NONFINITE_LEVEL, FIRST_LEVEL, EMPTY_LEVEL, UNMEASURED_LEVEL),
    );
  });
});

describe.each([LIGHT, DARK])("the ramp of the $name theme", (theme) => {
  const shades = Array.from({ length: 65 }, (_, i) => luminance(rampColour(theme.ramp, i / 64)));
  const away = theme.name === "dark" ? 1 : -1;

  it("moves steadily away from the ground", () => {
    for (let i = 1; i < shades.length; i++) {
      expect(away * ((shades[i] as number) - (shades[i - 1] as number))).toBeGreaterThan(0);
    }
  });

  it("begins near the ground's own lightness", () => {
    expect(Math.abs((shades[0] as number) - luminance(parseHex(theme.ground)))).toBeLessThan(0.15);
  });
});

describe.each([LIGHT, DARK])("NaN and Inf in the $name theme", (theme) => {
  it("stand out from every colour of the ramp", () => {
    const cell = parseHex(theme.nonfiniteCell);
    for (let i = 0; i <= 64; i++) {
      const distance = Math.hypot(...rampColour(theme.ramp, i / 64).map((value, k) => value - (cell[k] as number)));
      expect(distance).toBeGreaterThan(120);
    }
  });
});

describe.each([LIGHT, DARK])("texts in the $name theme", (theme) => {
  const contrast = (a: string, b: string) => {
    const [low, high] = [luminance(parseHex(a)), luminance(parseHex(b))].sort((x, y) => x - y) as [number, number];
    return (high + 0.05) / (low + 0.05);
  };

  it.each(["text", "dim", "critical", "warning", "info", "ok", "nonfinite"] as const)("%s can be read", (name) => {
    for (const behind of [theme.ground, theme.panel, theme.hover]) {
      expect(contrast(theme[name], behind)).toBeGreaterThanOrEqual(4.5);
    }
  });
});
