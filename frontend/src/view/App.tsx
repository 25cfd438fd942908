/** The page: header, rail, and the view that is chosen. */

import { useEffect } from "preact/hooks";
import type { View } from "../model/hash";
import { cssVariables } from "../theme/theme";
import { Activations } from "./Activations";
import { ExecutionTrace } from "./ExecutionTrace";
import { Gradients } from "./Gradients";
import { Header } from "./Header";
import { KeyList } from "./KeyList";
import { isTyping, pressKey } from "./keys";
import { Memory } from "./Memory";
import { Overview } from "./Overview";
import { Rail } from "./Rail";
import { ConnectionLine, Loading, NoSession } from "./States";
import { useViewer } from "./viewer";

const COMPONENTS: Readonly<Record<View, () => preact.JSX.Element>> = {
  overview: Overview,
  trace: ExecutionTrace,
  gradients: Gradients,
  activations: Activations,
  memory: Memory,
};

export function App() {
  const { store, theme } = useViewer();
  useEffect(() => {
    const onKey = (event: KeyboardEvent) => {
      if (isTyping(event.target)) {
        if (event.key === "Escape") (event.target as HTMLElement).blur();
      } else if (pressKey(store, event)) event.preventDefault();
    };
    document.addEventListener("keydown", onKey);
    return () => document.removeEventListener("keydown", onKey);
  }, [store]);
  return (
    <div class="app" style={cssVariables(theme.value)}>
      <Header />
      <Rail />
      <main>
        <ConnectionLine />
        <Content />
      </main>
      <KeyList />
    </div>
  );
}

function Content() {
  const { store } = useViewer();
  if (store.sessions.value?.length === 0 && store.session.value === null) return <NoSession />;
  if (store.session.value === null) {
    return store.connection.value.state === "loading" || store.connection.value.state === "fresh" ? (
      <Loading what="Loading the run" />
    ) : null;
  }
  const Chosen = COMPONENTS[store.view.value];
  return <Chosen />;
}
