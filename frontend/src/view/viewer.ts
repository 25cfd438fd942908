/** What every component needs: the state, the theme, and whether anybody is looking. */

import type { ReadonlySignal } from "@preact/signals";
import { createContext } from "preact";
import { useContext, useEffect, useRef, useState } from "preact/hooks";
import { sentenceOf } from "../api/feed";
import { Loader } from "../api/loader";
import type { Store } from "../model/store";
import type { Theme } from "../theme/theme";

export interface Viewer {
  readonly store: Store;
  readonly theme: ReadonlySignal<Theme>;
  readonly visible: ReadonlySignal<boolean>;
}

export const ViewerContext = createContext<Viewer | null>(null);

export function useViewer(): Viewer {
  const viewer = useContext(ViewerContext);
  if (viewer === null) throw new Error("A component of the viewer stands outside of it.");
  return viewer;
}

export interface Answer<T> {
  readonly value: T | null;
  readonly error: string | null;
}

const NOTHING: Answer<never> = { value: null, error: null };

/**
 * Fetches what `identity` names, again whenever `detail`, the run's revision or the connection changes. The last answer
 * stays until the next one comes, and goes when `identity` changes. A null identity asks for nothing.
 */
export function useQuery<T>(
  identity: string | null,
  detail: string,
  fetch: (signal: AbortSignal) => Promise<T>,
): Answer<T> {
  const { store, visible } = useViewer();
  const [answer, setAnswer] = useState<(Answer<T> & { identity: string }) | null>(null);
  const loader = useRef(new Loader<T>());
  const revision = store.session.value?.revision ?? null;
  const generation = store.generation.value;
  const wanted = visible.value && revision !== null ? identity : null;
  useEffect(() => {
    if (wanted === null) return loader.current.stop();
    loader.current.load({
      identity: wanted,
      fetch,
      done: (value) => setAnswer({ identity: wanted, value, error: null }),
      failed: (error) =>
        setAnswer((before) => ({
          identity: wanted,
          value: before?.identity === wanted ? before.value : null,
          error: sentenceOf(error),
        })),
    });
  }, [wanted, detail, revision, generation]);
  useEffect(() => () => loader.current.stop(), []);
  return answer !== null && answer.identity === identity ? answer : NOTHING;
}

/** Returns the size of the element that `ref` is put on, in whole CSS pixels, kept up to date. */
export function useSize<E extends HTMLElement>() {
  const ref = useRef<E>(null);
  const [size, setSize] = useState({ width: 0, height: 0 });
  useEffect(() => {
    const element = ref.current;
    if (element === null) return;
    const observer = new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = element;
      // A hidden tab is no pixels high; what was drawn stays as it was.
      if (width > 0)
        setSize((before) => (before.width === width && before.height === height ? before : { width, height }));
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return { ref, ...size };
}
