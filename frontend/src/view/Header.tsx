/** The header: which run, which step, how it stands. */

import type { Status } from "../api/types";
import { formatCount } from "../model/format";
import { costText } from "../model/sampling";
import { chooseRun, moveStep, pinStep, toggleLatest } from "../model/store";
import { filledShare } from "../model/viewport";
import { useViewer } from "./viewer";

const MEANINGS: Readonly<Record<Status, string>> = {
  live: "training goes on and is being recorded",
  finished: "training ended by itself",
  failed: "training ended by an error",
  lost: "training was not heard of for 15 seconds",
};

export function Header() {
  const { store } = useViewer();
  const { cost, budget, isOver, why } = costText(store.session.value);
  return (
    <header>
      <RunPicker />
      <StepSlider />
      <span class={`cost ${isOver ? "warning-text" : ""}`} title={why}>
        watching costs <b>{cost}</b>
        {budget}
      </span>
      <button
        type="button"
        class="key-button"
        aria-label="List of keys"
        title="List of keys"
        onClick={() => {
          store.keysShown.value = true;
        }}
      >
        ?
      </button>
    </header>
  );
}

function RunPicker() {
  const { store } = useViewer();
  const sessions = store.sessions.value ?? [];
  const run = store.run.value;
  const status = store.session.value?.status ?? sessions.find(({ name }) => name === run)?.status;
  const known = run === null || sessions.some(({ name }) => name === run);
  if (run === null && sessions.length === 0) return null;
  return (
    <>
      <span class="run">
        <i class={`dot ${status ?? ""}`} />
        <select
          id="run-picker"
          aria-label="Run"
          value={run ?? ""}
          onChange={(event) => chooseRun(store, event.currentTarget.value)}
        >
          {!known && <option value={run ?? ""}>{run}</option>}
          {sessions.map((session) => (
            <option key={session.name} value={session.name}>
              {session.name === run ? run : `${session.name} · ${session.status}`}
            </option>
          ))}
        </select>
      </span>
      {status && (
        <span class={`status ${status}`} title={MEANINGS[status]}>
          {status}
        </span>
      )}
    </>
  );
}

const SKIPPED = "The gradient scaler skipped the optimizer step: gradients were not finite, and no weight was changed.";

function StepSlider() {
  const { store } = useViewer();
  const session = store.session.value;
  const first = session?.first_step ?? 0;
  const last = session?.last_step ?? null;
  const step = store.step.value;
  const following = store.pinned.value === null;
  if (last === null || step === null) return <span class="slider dim">nothing recorded yet</span>;
  return (
    <span class="slider">
      <label for="step-slider">step</label>
      <input
        id="step-slider"
        type="range"
        min={first}
        max={Math.max(last, step)}
        step={1}
        value={step}
        aria-valuetext={`step ${formatCount(step)} of ${formatCount(last)}${following ? ", latest" : ", pinned"}`}
        style={{ "--filled": `${filledShare(first, Math.max(last, step), step) * 100}%` }}
        onInput={(event) => pinStep(store, event.currentTarget.valueAsNumber)}
        onKeyDown={(event) => {
          // By one frame, as everywhere, not by one step of the slider.
          const by = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 }[event.key];
          if (by === undefined) return;
          event.preventDefault();
          event.stopPropagation();
          moveStep(store, by);
        }}
      />
      <b class="number">{formatCount(step)}</b>
      <span class="dim number">/ {formatCount(last)}</span>
      {store.frame.value?.scalars.skipped === 1 && (
        <span class="warning-text" title={SKIPPED}>
          skipped
        </span>
      )}
      <button type="button" class="key-button" aria-label="Previous frame" onClick={() => moveStep(store, -1)}>
        ←
      </button>
      <button type="button" class="key-button" aria-label="Next frame" onClick={() => moveStep(store, 1)}>
        →
      </button>
      <button
        type="button"
        class="toggle"
        aria-pressed={following}
        title={following ? "Following the newest step" : "The step is pinned; press to follow the newest"}
        onClick={() => toggleLatest(store)}
      >
        latest <kbd>l</kbd>
      </button>
    </span>
  );
}
