/** The Overview: what this session is, what its reader should know, and its layers. */

import { formatCount, formatDuration, formatMoment, formatValue, NOT_AVAILABLE } from "../model/format";
import { samplingText } from "../model/sampling";
import { Episodes } from "./Episodes";
import { LayerTable } from "./LayerTable";
import { Ranks } from "./Ranks";
import { useViewer } from "./viewer";

export function Overview() {
  return (
    <div class="view overview">
      <Facts />
      <LayerTable />
      <Ranks />
    </div>
  );
}

/** The header tells the cost, words that a step was skipped, and two figures are durations. */
const TOLD_ELSEWHERE: ReadonlySet<string> = new Set(["overhead", "skipped", "step_seconds", "tracing_seconds"]);

function Facts() {
  const { store } = useViewer();
  const session = store.session.value;
  if (session === null) return null;
  const parameters = store.layers.value?.layers.reduce((sum, layer) => sum + layer.parameters, 0);
  const last = session.last_step;
  const scalars = Object.entries(store.frame.value?.scalars ?? {}).filter(([name]) => !TOLD_ELSEWHERE.has(name));
  const skipped = store.frame.value?.scalars.skipped === 1;
  return (
    <section class="facts" aria-label="Session">
      <h2>{session.model || session.name}</h2>
      {session.status === "failed" && <Card kind="critical" title="Training failed" text={session.ended_because} />}
      {session.status === "lost" && (
        <Card
          kind="warning"
          title="Training is not heard of any more"
          text="It ended without saying so: the process was killed, or its machine was lost. What it recorded is all here."
        />
      )}
      <Episodes />
      {session.problems.map((sentence) => (
        <Card key={sentence} kind="warning" title="Problem" text={sentence} />
      ))}
      {[...session.notices, ...store.directoryNotices.value].map((sentence) => (
        <Card key={sentence} kind="info" title="Notice" text={sentence} />
      ))}
      <dl>
        <Fact name="framework" value={session.framework || NOT_AVAILABLE} />
        <Fact
          name="layers"
          value={store.layers.value ? formatCount(store.layers.value.layers.length) : NOT_AVAILABLE}
        />
        <Fact name="parameters" value={parameters === undefined ? NOT_AVAILABLE : formatCount(parameters)} />
        <Fact name="sampling" value={samplingText(session)} />
        {session.world_size > 1 && <Fact name="rank" value={`${session.rank} of ${formatCount(session.world_size)}`} />}
        <Fact
          name="recorded"
          value={
            last === null ? "nothing yet" : `steps ${formatCount(session.first_step ?? 0)} to ${formatCount(last)}`
          }
        />
        <Fact name="started" value={session.started === null ? NOT_AVAILABLE : formatMoment(session.started)} />
        {session.step_seconds !== null && <Fact name="plain step" value={formatDuration(session.step_seconds)} />}
        {session.tracing_seconds !== null && (
          <Fact name="tracing, once" value={formatDuration(session.tracing_seconds)} />
        )}
        {scalars.map(([name, value]) => (
          <Scalar key={name} name={name} value={value} />
        ))}
        {skipped && <Fact name="optimizer" value="step skipped by the gradient scaler" />}
      </dl>
    </section>
  );
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </>
  );
}

function Scalar({ name, value }: { name: string; value: number | string }) {
  const step = useViewer().store.frame.value?.step ?? 0;
  return (
    <>
      <dt>{name.replaceAll("_", " ")}</dt>
      <dd class={typeof value === "string" ? "nonfinite-text number" : "number"} title={`at step ${formatCount(step)}`}>
        {typeof value === "string" ? value : formatValue(value)}
      </dd>
    </>
  );
}

function Card({ kind, title, text }: { kind: "critical" | "warning" | "info"; title: string; text: string }) {
  return (
    <div class={`card ${kind}`}>
      <h3>{title}</h3>
      <p>{text}</p>
    </div>
  );
}
