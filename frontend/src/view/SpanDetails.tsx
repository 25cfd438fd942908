/** What is known of the chosen span, in words. */

import { spanFacts, spanName, type Trace } from "../model/trace";
import { PhaseMark } from "./PhaseKey";
import { useViewer } from "./viewer";

export function SpanDetails({ trace }: { trace: Trace }) {
  const { store } = useViewer();
  const span = store.span.value;
  const table = store.layers.value;
  if (span === null) {
    return (
      <p class="span-details dim" aria-live="polite">
        The chosen layer did not run in this step.
      </p>
    );
  }
  const layer = span.layer === null ? undefined : table?.layers[span.layer];
  return (
    <div class="span-details" aria-live="polite">
      <span class="strong">
        <PhaseMark phase={span.phase} />
        {spanName(span, table)}
        {layer && layer.own_name !== layer.name && <small class="dim"> {layer.own_name}</small>}
      </span>
      <dl>
        {spanFacts(trace, span, table).map(({ name, value }) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd class="number">{value}</dd>
          </div>
        ))}
      </dl>
    </div>
  );
}
