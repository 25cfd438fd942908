/** The page around the viewer: TensorBoard's when it runs in a tab of it, else its own. */

import { type ReadonlySignal, signal } from "@preact/signals";
import { LINK_KEYS, type Link, PREFIX, parseLink, writeLink } from "./model/hash";

/** TensorBoard's own storage of values in the address; internal, so it may be missing. */
interface TensorBoardWindow {
  tensorboard?: {
    tf_storage?: {
      setString?(key: string, value: string, options: { useLocationReplace: boolean; defaultValue: string }): void;
    };
  };
}

export interface Host {
  readonly dark: ReadonlySignal<boolean>;
  /** False while another tab is in front: then nothing is asked for and nothing is drawn. */
  readonly visible: ReadonlySignal<boolean>;
  link(): Link;
  write(link: Link): void;
  onNavigate(follow: (link: Link) => void): void;
  onReload(reload: () => void): void;
}

export function connectHost(): Host {
  document.documentElement.lang = "en";
  document.title = "NeuralDbg";
  const page = reachableParent() ?? window;
  let written = "";

  return {
    dark: watchTheme(page),
    visible: watchVisibility(page),
    link: () => parseLink(page.location.hash),
    write(link) {
      const setString = (page as TensorBoardWindow).tensorboard?.tf_storage?.setString;
      if (setString) {
        for (const key of LINK_KEYS) {
          setString(PREFIX + key, String(link[key] ?? ""), { useLocationReplace: true, defaultValue: "" });
        }
      } else {
        page.history.replaceState(page.history.state, "", writeLink(page.location.hash, link));
      }
      written = page.location.hash;
    },
    onNavigate(follow) {
      page.addEventListener("hashchange", () => {
        const isOurs = page === window || page.location.hash.startsWith("#neuraldbg");
        if (isOurs && page.location.hash !== written) follow(parseLink(page.location.hash));
      });
    },
    onReload(reload) {
      if (page === window) return;
      const channel = new MessageChannel();
      channel.port1.onmessage = (event: MessageEvent<unknown>) => {
        if (String(event.data).includes('"experimental.DataReloaded"')) reload();
      };
      page.postMessage("experimental.bootstrap", "*", [channel.port2]);
    },
  };
}

/** Returns the page that holds ours in a frame, or null where there is none or it is of another origin. */
function reachableParent(): Window | null {
  try {
    return window.parent !== window && window.parent.document ? window.parent : null;
  } catch {
    return null;
  }
}

function watchTheme(page: Window): ReadonlySignal<boolean> {
  const preference = window.matchMedia("(prefers-color-scheme: dark)");
  const standalone = page === window;
  const read = () => (standalone ? preference.matches : page.document.body.classList.contains("dark-mode"));
  const dark = signal(read());
  const update = () => {
    dark.value = read();
  };
  if (standalone) preference.addEventListener("change", update);
  else new MutationObserver(update).observe(page.document.body, { attributes: true, attributeFilter: ["class"] });
  return dark;
}

/** TensorBoard hides the frames of other tabs by making them no pixels high; the browser hides whole pages. */
function watchVisibility(page: Window): ReadonlySignal<boolean> {
  const read = () => window.innerHeight > 0 && !document.hidden;
  const visible = signal(read());
  const update = () => {
    visible.value = read();
    if (visible.value) takeKeys(page);
  };
  takeKeys(page);
  window.addEventListener("resize", update);
  document.addEventListener("visibilitychange", update);
  return visible;
}

/** Lets our keys work without a click into the frame first, unless something around it has the focus. */
function takeKeys(page: Window): void {
  const focused = page.document.activeElement;
  if (focused === null || focused === page.document.body) window.focus();
}
