/** The Activations view: one statistic by layer and step, the chosen layer's statistics, its distribution. */

import { ACTIVATION_STATISTICS, type ActivationStatistic } from "../model/store";
import { roomAbove } from "../model/viewport";
import { DistributionPanel } from "./DistributionPanel";
import { MatrixPanel } from "./MatrixPanel";
import { Segmented, TableToggle } from "./Segmented";
import { SeriesPanel } from "./SeriesPanel";
import { useSize, useViewer } from "./viewer";

const TEXTS: Readonly<Record<ActivationStatistic, { choice: string; title: string }>> = {
  std: { choice: "std", title: "Activations, log10 standard deviation" },
  mean: { choice: "mean", title: "Activations, mean" },
  min: { choice: "min", title: "Activations, minimum" },
  max: { choice: "max", title: "Activations, maximum" },
  zero_share: { choice: "zeros", title: "Activations, share of zeros" },
};

const STATISTICS = ["mean", "std", "min", "max", "zero_share"] as const;
const CHART_HEIGHT = 132;
const DISTRIBUTION_ROOM = 250;
/** The charts and the distribution below, with all titles, axes and captions. */
const BELOW_ROOM = 570;

export function Activations() {
  const { store } = useViewer();
  const { ref, height } = useSize<HTMLDivElement>();
  const statistic = store.activationStatistic.value;
  return (
    <div class="view" ref={ref}>
      <MatrixPanel
        title={TEXTS[statistic].title}
        kind="activations"
        statistic={statistic}
        byLayer={false}
        room={roomAbove(height, BELOW_ROOM)}
      >
        <Segmented
          label="What the picture shows"
          options={ACTIVATION_STATISTICS.map((value) => ({ value, text: TEXTS[value].choice }))}
          chosen={statistic}
          onChoose={(value) => {
            store.activationStatistic.value = value;
          }}
        />
        <TableToggle
          shown={store.asTable.value}
          onToggle={() => {
            store.asTable.value = !store.asTable.value;
          }}
        />
      </MatrixPanel>
      <SeriesPanel kind="activations" byLayer={false} statistics={STATISTICS} apart height={CHART_HEIGHT} />
      <DistributionPanel kind="activations" room={DISTRIBUTION_ROOM} />
    </div>
  );
}
