/** Keeps the store up to date: asks once a second whether the run has changed, and only then for more. */

import { effect, type ReadonlySignal, untracked } from "@preact/signals";
import { PROFILES_OF_VIEW } from "../model/profile";
import { chooseRun, preferredRun, type Store } from "../model/store";
import { fetchFrame, fetchLayers, fetchProfiles, fetchSession, fetchSessions, fetchSteps, Refused } from "./client";
import { Loader } from "./loader";
import type { Frame, Profiles, Session } from "./types";

const POLL_MS = 1000;
/** The list of runs is asked for less often: it needs a walk through the log directory. */
const SESSIONS_MS = 10_000;
/** A longer list of steps is not fetched anew on every change, but at most this often. */
const LONG_LIST = 20_000;
const LONG_LIST_MS = 10_000;

export interface Feed {
  /** Asks for everything again, now. */
  refresh(): void;
}

/** Starts polling; while `visible` is false nothing is asked for. */
export function startFeed(store: Store, visible: ReadonlySignal<boolean>): Feed {
  let timer = 0;
  let running: AbortController | null = null;
  let sessionsAsked = 0;
  let stepsAsked = 0;
  let framesKnown = -1;

  async function poll(signal: AbortSignal): Promise<void> {
    if (store.run.value === null || Date.now() - sessionsAsked >= SESSIONS_MS) {
      const { sessions, notices } = await fetchSessions(signal);
      sessionsAsked = Date.now();
      store.sessions.value = sessions;
      store.directoryNotices.value = notices;
      const first = preferredRun(sessions);
      // A run that is chosen here starts a poll of its own.
      if (store.run.value === null && first !== null) return chooseRun(store, first);
    }
    const run = store.run.value;
    if (run !== null) await pollRun(run, signal);
  }

  async function pollRun(run: string, signal: AbortSignal): Promise<void> {
    const known = store.session.value;
    const session = await fetchSession(run, known?.revision ?? null, signal);
    if (session === null) return;
    const newTable = session.table_revision !== known?.table_revision || store.layers.value === null;
    if (newTable && session.table_revision !== null) store.layers.value = await fetchLayers(run, signal);
    await pollSteps(run, session, signal);
    store.session.value = session;
  }

  async function pollSteps(run: string, session: Session, signal: AbortSignal): Promise<void> {
    const frames = Math.max(0, ...Object.values(session.kinds).map((kind) => kind.frames));
    const tooSoon = store.steps.value.length > LONG_LIST && Date.now() - stepsAsked < LONG_LIST_MS;
    if (store.steps.value.length > 0 && (frames === framesKnown || tooSoon)) return;
    if (session.last_step === null) return;
    store.steps.value = await fetchSteps(run, signal);
    framesKnown = frames;
    stepsAsked = Date.now();
  }

  async function tick(): Promise<void> {
    pause();
    const controller = new AbortController();
    running = controller;
    try {
      await poll(controller.signal);
      if (controller.signal.aborted) return;
      const recovered = store.connection.value.state === "stale";
      store.connection.value = { state: "fresh" };
      if (recovered) store.generation.value++;
    } catch (error) {
      if (controller.signal.aborted) return;
      report(store, error);
      // The run may be gone, or the server may have started anew with others: look at the list the next time.
      sessionsAsked = 0;
    }
    timer = window.setTimeout(tick, POLL_MS);
  }

  function pause(): void {
    window.clearTimeout(timer);
    running?.abort();
  }

  effect(() => {
    store.run.value;
    if (visible.value) untracked(() => void tick());
    else pause();
  });
  followStep(store, visible);
  followProfiles(store, visible);
  return {
    refresh() {
      sessionsAsked = 0;
      framesKnown = -1;
      store.generation.value++;
      if (visible.value) void tick();
    },
  };
}

/** Fetches the frame of the step that is shown whenever that changes; the newest one also when the run grows. */
function followStep(store: Store, visible: ReadonlySignal<boolean>): void {
  const loader = new Loader<Frame>();
  effect(() => {
    const run = store.run.value;
    const step = store.step.value;
    const pinned = store.pinned.value !== null;
    store.generation.value;
    if (!pinned) store.session.value?.revision;
    if (run === null || step === null || !visible.value) return loader.stop();
    loader.load({
      identity: `${run} ${pinned ? step : "newest"}`,
      fetch: (signal) => fetchFrame(run, step, signal),
      done: (frame) => {
        store.frame.value = frame;
      },
      failed: (error) => report(store, error),
    });
  });
}

/** Fetches those profiles of the step that is shown which the view shows and the session has. */
function followProfiles(store: Store, visible: ReadonlySignal<boolean>): void {
  const loader = new Loader<Profiles>();
  effect(() => {
    const run = store.run.value;
    const pinned = store.pinned.value;
    const recorded = store.session.value?.profiles ?? {};
    const kinds = PROFILES_OF_VIEW[store.view.value].filter((kind) => kind in recorded);
    store.generation.value;
    store.session.value?.revision;
    if (run === null || kinds.length === 0 || !visible.value) return loader.stop();
    // A trace may be newer than the newest frame: where none is pinned, no step is named.
    const step = pinned === null ? null : store.step.value;
    loader.load({
      identity: `${run} ${kinds} ${step ?? "newest"}`,
      fetch: (signal) => fetchProfiles(run, kinds, step, signal),
      done: (profiles) => {
        store.profiles.value = { ...store.profiles.peek(), ...profiles };
      },
      failed: (error) => report(store, error),
    });
  });
}

function report(store: Store, error: unknown): void {
  const state = error instanceof Refused ? "refused" : "stale";
  store.connection.value = { state, sentence: sentenceOf(error) };
}

export function sentenceOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
