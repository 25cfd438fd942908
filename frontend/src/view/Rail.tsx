/** The views, each with how many layers hold NaN or Inf in what it shows. */

import { formatCount, formatPlural } from "../model/format";
import { VIEW_TITLES, VIEWS, type View } from "../model/hash";
import { layersWithNonfinite, OF_LAYERS } from "../model/layers";
import { useViewer } from "./viewer";

const MATRICES: Readonly<Record<View, readonly string[]>> = {
  overview: OF_LAYERS,
  trace: [],
  gradients: OF_LAYERS.filter((matrix) => matrix !== "activations"),
  activations: ["activations"],
  memory: [],
};

export function Rail() {
  const { store } = useViewer();
  return (
    <nav aria-label="Views">
      {VIEWS.map((view) => (
        <button
          key={view}
          type="button"
          aria-current={store.view.value === view ? "page" : undefined}
          onClick={() => {
            store.view.value = view;
          }}
        >
          {VIEW_TITLES[view]}
          <Badge view={view} />
        </button>
      ))}
    </nav>
  );
}

function Badge({ view }: { view: View }) {
  const { store } = useViewer();
  const frame = store.frame.value;
  const layers = store.layers.value?.layers.length ?? 0;
  const count = frame ? layersWithNonfinite(frame, layers, MATRICES[view]) : 0;
  if (count === 0 || frame === null) return null;
  const title = `${formatPlural(count, "layer")} with NaN or Inf at step ${formatCount(frame.step)}`;
  return (
    <span class="badge" title={title}>
      {formatCount(count)}
      <span class="hidden"> {title}</span>
    </span>
  );
}
