/** The Gradients view: magnitude by layer and step, the chosen layer over the steps, its histogram. */

import { GRADIENT_KINDS, type GradientKind } from "../model/store";
import { roomAbove } from "../model/viewport";
import { HistogramPanel } from "./HistogramPanel";
import { MatrixPanel } from "./MatrixPanel";
import { Segmented, TableToggle } from "./Segmented";
import { SeriesPanel } from "./SeriesPanel";
import { useSize, useViewer } from "./viewer";

const TEXTS: Readonly<Record<GradientKind, { choice: string; title: string }>> = {
  gradients: { choice: "of weights", title: "Gradient magnitude, log10 rms of ∂loss/∂weights" },
  activation_gradients: { choice: "of activations", title: "Gradient magnitude, log10 rms of ∂loss/∂activations" },
  updates: { choice: "updates", title: "Update magnitude, log10 rms of the change of the weights" },
  weights: { choice: "weights", title: "Weight magnitude, log10 rms" },
};

const STATISTICS = ["rms", "absmax"] as const;
const BELOW_HEIGHT = 230;
/** The charts below with their titles, and the title, axis and caption of the heat map. */
const BELOW_ROOM = 340;

export function Gradients() {
  const { store } = useViewer();
  const { ref, height } = useSize<HTMLDivElement>();
  const kind = store.gradientKind.value;
  const byLayer = kind !== "activation_gradients";
  const kinds = store.session.value?.kinds ?? {};
  return (
    <div class="view" ref={ref}>
      <MatrixPanel
        title={TEXTS[kind].title}
        kind={kind}
        statistic="rms"
        byLayer={byLayer}
        room={roomAbove(height, BELOW_ROOM)}
      >
        <Segmented
          label="What the picture shows"
          options={GRADIENT_KINDS.map((value) => ({ value, text: TEXTS[value].choice, disabled: !(value in kinds) }))}
          chosen={kind}
          onChoose={(value) => {
            store.gradientKind.value = value;
          }}
        />
        <TableToggle
          shown={store.asTable.value}
          onToggle={() => {
            store.asTable.value = !store.asTable.value;
          }}
        />
      </MatrixPanel>
      <div class="below">
        <SeriesPanel kind={kind} byLayer={byLayer} statistics={STATISTICS} apart={false} height={BELOW_HEIGHT} />
        <HistogramPanel kind={kind} byLayer={byLayer} height={BELOW_HEIGHT - 24} />
      </div>
    </div>
  );
}
