/** The phases of a step: which colour each has, and what each took. */

import { formatDuration, formatShare } from "../model/format";
import { PHASES, type Phase, phaseDuration, type Trace } from "../model/trace";
import { useViewer } from "./viewer";

export function PhaseKey({ trace }: { trace: Trace }) {
  const whole = phaseDuration(trace, "step");
  return (
    <span class="phase-key">
      {PHASES.filter((phase) => phase !== "step").map((phase) => {
        const duration = phaseDuration(trace, phase);
        return (
          <span key={phase} title={duration === null ? `n/a: the ${phase} as a whole was not recorded` : undefined}>
            <PhaseMark phase={phase} />
            {phase} <b class="number">{formatDuration(duration)}</b>
            {duration !== null && whole !== null && <span class="number"> {formatShare(duration / whole)}</span>}
          </span>
        );
      })}
    </span>
  );
}

export function PhaseMark({ phase }: { phase: Phase }) {
  const { theme } = useViewer();
  return <i class="phase-mark" style={{ background: theme.value.phases[PHASES.indexOf(phase)] }} />;
}
