/** The table behind a line chart: steps down, statistics across. */

import type { Series } from "../api/types";
import { columnText, styleOf } from "../model/picture";
import { columnValueText } from "../model/series";
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
            <th scope="row" class="number">
              {columnText(series, column).replace(/^steps? /, "")}
            </th>
            {series.statistics.map((statistic, i) => {
              const bound = statistic === "min" ? series.minimum : series.maximum;
              const value = bound[i * columns + column] as number;
              return (
                <td
                  key={statistic}
                  class="number"
                  data-statistic={statistic}
                  data-step={step}
                  data-value={Number.isNaN(value) ? undefined : value}
                >
                  {columnValueText(series, statistic, column)}
                </td>
              );
            })}
          </tr>
        ))}
      </tbody>
    </ScrollTable>
  );
}
