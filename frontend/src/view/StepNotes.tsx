/** What is said where there is no trace of the step that all views show. */

import type { Profile } from "../api/types";
import { formatCount, formatDuration } from "../model/format";
import { Missing } from "./States";
import { useViewer } from "./viewer";

/** Where the trace is of an earlier step than the one that all views show: why. */
export function EarlierStep({ step }: { step: number | null }) {
  const shown = useViewer().store.step.value;
  if (step === null || shown === null || step === shown) return null;
  return (
    <small class="dim" title="Not every step has a trace.">
      the newest trace up to step {formatCount(shown)}
    </small>
  );
}

/** Where layers were not timed in training itself: of what the times are, and what the compiled step takes as a whole. */
export function Apart() {
  const session = useViewer().store.session.value;
  if (session?.profiled !== "apart") return null;
  const compiled = session.step_seconds === null ? "n/a" : formatDuration(session.step_seconds);
  return (
    <p class="caption" title="A compiled step cannot be looked into layer by layer.">
      Run eagerly beside training, on the same batch: here a layer can be timed. The compiled step takes{" "}
      <b>{compiled}</b> as a whole.
    </p>
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
        <button
          type="button"
          class="link"
          onClick={() => {
            // Not by `pinStep`: a step may have a trace and no frame.
            store.pinned.value = first;
          }}
        >
          Go to step {formatCount(first)}
        </button>
      </p>
    </div>
  );
}
