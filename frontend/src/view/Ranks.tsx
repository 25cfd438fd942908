/** The ranks of a distributed job side by side: who differs, who is lost, and their figures over the steps. */

import { useEffect, useMemo, useState } from "preact/hooks";
import { fetchRankSeries, fetchRanks, type RankSeries, type Ranks as RanksAnswer } from "../api/ranks";
import { formatCount } from "../model/format";
import { rangeKey } from "../model/picture";
import { figureLabel, rankLines, rankRows, remarks, shownFigures } from "../model/ranks";
import { linesOf } from "../model/series";
import { Chart } from "./Chart";
import { ScrollTable } from "./ScrollTable";
import { Notice } from "./States";
import { useQuery, useSize, useViewer } from "./viewer";

/** Another rank may die, or go on, while the one that is shown has nothing new to say. */
const ASK_AGAIN_MS = 5000;
const CHART_HEIGHT = 150;
const TABLE_ROOM = 240;

/** Nothing where training runs in one process. */
export function Ranks() {
  const { store } = useViewer();
  const run = store.run.value;
  const isDistributed = (store.session.value?.world_size ?? 1) > 1;
  return isDistributed && run !== null ? <RanksOf key={run} run={run} /> : null;
}

function RanksOf({ run }: { run: string }) {
  const { store } = useViewer();
  const pinned = store.pinned.value;
  const tick = useTick(ASK_AGAIN_MS);
  const { value, error } = useQuery<RanksAnswer>(`${run} ranks`, `${pinned} ${tick}`, (signal) =>
    fetchRanks(run, pinned, signal),
  );
  if (value === null) return error === null ? null : <Notice sentence={error} />;
  const figures = shownFigures(value.scalars);
  return (
    <section class="panel ranks" aria-label="Ranks">
      <div class="panel-head">
        <h2>{formatCount(value.world_size)} ranks</h2>
      </div>
      <div class="remarks">
        {remarks(value).map(({ kind, title, text }) => (
          <div key={`${title} ${text}`} class={`card ${kind}`}>
            <h3>{title}</h3>
            <p>{text}</p>
          </div>
        ))}
      </div>
      <div class="multiples">
        {figures.map((figure) => (
          <FigureChart key={figure} run={run} figure={figure} ranks={value} tick={tick} />
        ))}
      </div>
      <RankTable ranks={value} figures={figures} />
    </section>
  );
}

function FigureChart(props: { run: string; figure: string; ranks: RanksAnswer; tick: number }) {
  const { run, figure, ranks, tick } = props;
  const { store } = useViewer();
  const { ref, width } = useSize<HTMLDivElement>();
  const [hovered, setHovered] = useState<number | null>(null);
  const zoom = store.zoom.value;
  const { value, error } = useQuery<RankSeries>(
    width > 0 ? `${run} ranks ${figure}` : null,
    `${width} ${rangeKey(zoom)} ${tick}`,
    (signal) => fetchRankSeries({ run, scalar: figure, width, range: zoom }, signal),
  );
  const series = useMemo(() => value && rankLines(value, ranks), [value, ranks]);
  const lines = useMemo(() => series && linesOf(series, false), [series]);
  return (
    <div ref={ref} style={{ minHeight: `${CHART_HEIGHT}px` }}>
      {error !== null && <Notice sentence={error} />}
      {series !== null && lines !== null && (
        <Chart
          title={figureLabel(figure)}
          series={series}
          lines={lines}
          hovered={hovered}
          onHover={setHovered}
          log={false}
          group="ranks"
          height={CHART_HEIGHT}
        />
      )}
    </div>
  );
}

function RankTable({ ranks, figures }: { ranks: RanksAnswer; figures: readonly string[] }) {
  const rows = rankRows(ranks, figures);
  return (
    <ScrollTable label="Figures of each rank" room={TABLE_ROOM} rowCount={rows.length}>
      <thead>
        <tr>
          <th scope="col">rank</th>
          <th scope="col">status</th>
          <th scope="col">last step</th>
          {figures.flatMap((figure) => [
            <th key={figure} scope="col">
              {figureLabel(figure)}
            </th>,
            <th
              key={`${figure} distance`}
              scope="col"
              title={`distance of the ${figureLabel(figure)} from the ranks' median`}
            >
              from median
            </th>,
          ])}
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.rank} data-rank={row.rank}>
            <th scope="row" class={row.isBad ? "number warning-text" : "number"}>
              {row.rank}
            </th>
            <td class={`status ${row.status}`}>{row.status}</td>
            <td class="number">{row.lastStep}</td>
            {row.cells.flatMap(({ value, distance, hint }, i) => [
              <td key={figures[i]} class="number" title={hint}>
                {value}
              </td>,
              <td key={`${figures[i]} distance`} class="number dim" title={hint}>
                {distance}
              </td>,
            ])}
          </tr>
        ))}
      </tbody>
    </ScrollTable>
  );
}

/** Returns a number that rises once in `milliseconds` while the component is there. */
function useTick(milliseconds: number): number {
  const [tick, setTick] = useState(0);
  useEffect(() => {
    const timer = window.setInterval(() => setTick((before) => before + 1), milliseconds);
    return () => window.clearInterval(timer);
  }, [milliseconds]);
  return tick;
}
