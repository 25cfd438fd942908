/** What went wrong, a card per episode: where it began, what followed, and the way to that step. */

import { fetchAnomalies } from "../api/client";
import type { Anomalies, Anomaly, Episode } from "../api/types";
import { episodeTitle, firstText, followedText, laterText, skippedText } from "../model/anomalies";
import { formatCount, formatPlural } from "../model/format";
import { VIEW_TITLES, type View } from "../model/hash";
import { chooseLayer, pinStep, type Store } from "../model/store";
import { Notice } from "./States";
import { useQuery, useViewer } from "./viewer";

/** Of what followed within a step, so much is named. */
const MOST_FOLLOWED = 4;

export function Episodes() {
  const { store } = useViewer();
  const run = store.run.value;
  const any = (store.session.value?.anomalies ?? 0) > 0;
  const { value, error } = useQuery<Anomalies>(run !== null && any ? `${run} anomalies` : null, "", (signal) =>
    fetchAnomalies(run ?? "", signal),
  );
  if (error !== null) return <Notice sentence={error} />;
  if (value === null) return null;
  const { episodes, left_out: more, skipped_steps: skipped, last_skipped_step: last } = value;
  return (
    <>
      {episodes.map((episode) => (
        <EpisodeCard key={episode.first_step} episode={episode} />
      ))}
      {more > 0 && <p class="dim">{formatPlural(more, "more episode")} of values that are not finite.</p>}
      {skipped > 0 && last !== null && (
        <div class="card info">
          <h3>Skipped steps</h3>
          <p>{skippedText(skipped, last)}</p>
          <p>
            <StepLink step={last} />
          </p>
        </div>
      )}
    </>
  );
}

function EpisodeCard({ episode }: { episode: Episode }) {
  const { store } = useViewer();
  const table = store.layers.value;
  const [first] = episode.anomalies;
  const followed = followedText(episode, table, MOST_FOLLOWED);
  const later = laterText(episode);
  return (
    <div class="card critical">
      <h3>
        {episodeTitle(episode, table)} <span class="dim">critical</span>
      </h3>
      {first && <p>{firstText(first)}</p>}
      {followed && <p>Then: {followed}.</p>}
      {later && <p>{later}</p>}
      <p>
        <StepLink step={episode.first_step} layer={first?.layer ?? null} />
        {first && <ViewLink view={viewOf(first)} episode={episode} />}
      </p>
    </div>
  );
}

function StepLink({ step, layer = null }: { step: number; layer?: number | null }) {
  const { store } = useViewer();
  return (
    <button type="button" class="link" onClick={() => goTo(store, step, layer)}>
      Go to step {formatCount(step)}
    </button>
  );
}

/** To the view that shows the values in which it began. */
function ViewLink({ view, episode }: { view: View; episode: Episode }) {
  const { store } = useViewer();
  return (
    <button
      type="button"
      class="link"
      onClick={() => {
        goTo(store, episode.first_step, episode.anomalies[0]?.layer ?? null);
        store.view.value = view;
      }}
    >
      Show in {VIEW_TITLES[view]}
    </button>
  );
}

function viewOf({ place }: Anomaly): View {
  return place === "forward" || place === "loss" ? "activations" : "gradients";
}

function goTo(store: Store, step: number, layer: number | null): void {
  pinStep(store, step);
  if (layer !== null) chooseLayer(store, layer);
}
