/** TensorBoard imports this module into the page of the tab and calls `render`. */

import { computed, effect } from "@preact/signals";
import { render as renderInto } from "preact";
import uplotStyles from "uplot/dist/uPlot.min.css?inline";
import { startFeed } from "./api/feed";
import { connectHost } from "./host";
import { createStore, followLink, linkOf } from "./model/store";
import controlStyles from "./styles/controls.css?inline";
import frameStyles from "./styles/frame.css?inline";
import pictureStyles from "./styles/pictures.css?inline";
import rankStyles from "./styles/ranks.css?inline";
import { DARK, LIGHT } from "./theme/theme";
import { App } from "./view/App";
import { ViewerContext } from "./view/viewer";

export function render(): void {
  const styles = document.createElement("style");
  styles.textContent = [uplotStyles, frameStyles, controlStyles, pictureStyles, rankStyles].join("\n");
  document.head.append(styles);

  const host = connectHost();
  const store = createStore(host.link());
  const theme = computed(() => (host.dark.value ? DARK : LIGHT));
  host.onNavigate((link) => followLink(store, link));
  effect(() => host.write(linkOf(store)));
  effect(() => {
    document.body.style.background = theme.value.ground;
  });
  const feed = startFeed(store, host.visible);
  host.onReload(() => feed.refresh());

  renderInto(
    <ViewerContext.Provider value={{ store, theme, visible: host.visible }}>
      <App />
    </ViewerContext.Provider>,
    document.body,
  );
}
