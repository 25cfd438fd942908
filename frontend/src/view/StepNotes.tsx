/** What is said where a profile is not of the step that all views show. */

import type { Profile } from "../api/types";
import { formatCount } from "../model/format";
import { pinStep } from "../model/store";
import { Missing } from "./States";
import { useViewer } from "./viewer";

/** Where what is shown is of an earlier step than the one that all views show: of which, and why. */
export function EarlierStep({ step, what }: { step: number | null; what: string }) {
  const shown = useViewer().store.step.value;
  if (step === null || shown === null || step === shown) return null;
  return (
    <small class="dim" title={`Not every step has a ${what}.`}>
      the newest {what} up to step {formatCount(shown)}
    </small>
  );
}

export interface NoTraceProps {
  readonly profile: Profile | undefined;
  readonly room: number;
}

/** In place of a trace: it is on its way, begins only after the step that is shown, or there will be none. */
export function NoTrace({ profile, room }: NoTraceProps) {
  const { store } = useViewer();
  const recorded = "trace" in (store.session.value?.profiles ?? {});
  const first = profile?.firstStep ?? null;
  if (profile === undefined || profile.step !== null || first === null) {
    return <Missing recorded={recorded && profile === undefined} kind="trace" room={room} />;
  }
  return (
    <div class="missing" style={{ minHeight: `${Math.min(room, 220)}px` }}>
      <p>
        There is no trace up to step {formatCount(store.step.value ?? 0)}; the first is of step {formatCount(first)}.{" "}
        <button type="button" class="link" onClick={() => pinStep(store, first)}>
          Go to step {formatCount(first)}
        </button>
      </p>
    </div>
  );
}
