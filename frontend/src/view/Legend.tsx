/** What the colours of a heat map stand for. */

import { rampGradient, type Scale } from "../model/colour";
import { legendTicks } from "../model/picture";
import { useViewer } from "./viewer";

export interface LegendProps {
  readonly scale: Scale;
  readonly format: (value: number) => string;
  /** What an empty cell stands for, where it does not stand for "not measured". */
  readonly empty?: string;
}

export function Legend({ scale, format, empty }: LegendProps) {
  const { theme } = useViewer();
  return (
    <div class="legend">
      <div class="ramp" style={{ background: rampGradient(theme.value.ramp) }}>
        {legendTicks(scale, format).map(({ place, text }) => (
          <span key={text} class="number" style={{ bottom: `${place * 100}%` }}>
            {text}
          </span>
        ))}
      </div>
      <div class="key">
        <i class="nonfinite" /> NaN, Inf
      </div>
      <div class="key dim">
        <i class={empty ? "blank" : "hatched"} /> {empty ?? "not measured"}
      </div>
    </div>
  );
}
