/** The table behind a line chart: steps down, statistics across. */

import type { Series } from "../api/types";
import { formatCount, formatSteps } from "../model/format";
import { formatStatistic, styleOf } from "../model/picture";
import { ScrollTable } from "./ScrollTable";

export function SeriesTable({ series, label, room }: { series: Series; label: string; room: number }) {
  const columns = series.firstStep.length;
  return (
    <ScrollTable label={label} room={room} rowCount={columns}>
      <thead>
        <tr>
          <th scope="col">step</th>
          {series.statistics.map((statistic) => (
            <th key={statistic} scope="col">
              {styleOf(statistic).label}
            </th>
          ))}
        </tr>
      </thead>
      <tbody>
        {Array.from(series.firstStep, (step, column) => (
          <tr key={step}>
            <th scope="row" class="number" title={formatSteps(step, series.lastStep[column] ?? step)}>
              {formatCount(step)}
            </th>
            {series.statistics.map((statistic, i) => {
              const value = series.maximum[i * columns + column] as number;
              const shown = Number.isNaN(value) ? null : value;
              return (
                <td
                  key={statistic}
                  class="number"
                  data-statistic={statistic}
                  data-step={step}
                  data-value={shown ?? undefined}
                >
                  {formatStatistic(statistic, shown)}
                </td>
              );
            })}
          </tr>
        ))}
      </tbody>
    </ScrollTable>
  );
}
