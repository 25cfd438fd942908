import { describe, expect, it } from "vitest";
import type { Departure, Rank, RankSeries, Ranks } from "../api/ranks";
import { namedRanks, rankLines, rankRows, remarks, shownFigures } from "./ranks";

function rank(number: number, loss: number | string = 1, rest: Partial<Rank> = {}): Rank {
  return {
    rank: number,
    status: "live",
    last_step: 1240,
    last_written: 1,
    ended_because: "",
    figures: { loss: { step: 1240, value: loss, from_median: typeof loss === "number" ? loss - 1 : loss } },
    ...rest,
  };
}

function job(rest: Partial<Ranks> = {}): Ranks {
  const ranks = [rank(0, 0.9), rank(1), rank(2, 3.1), rank(3, 1.1)];
  return { world_size: 4, missing: [], sharded: false, scalars: ["loss"], ranks, departures: [], ...rest };
}

const DEPARTURE: Departure = { scalar: "loss", rank: 2, step: 1240, value: 3.1, low: 0.9, high: 1.1 };

describe("remarks", () => {
  it("is silent where all ranks are well", () => {
    expect(remarks(job())).toEqual([]);
  });

  it("names the rank that departs, its figure and the others'", () => {
    expect(remarks(job({ departures: [DEPARTURE] }))).toEqual([
      {
        kind: "warning",
        title: "Rank 2 differs",
        text: "Its loss is 3.10, the others' 0.900 to 1.10 at step 1\u202f240.",
      },
    ]);
    const broken = { ...DEPARTURE, scalar: "gradient_norm", value: "NaN", high: 0.9 };
    expect(remarks(job({ departures: [broken] }))[0]?.text).toBe(
      "Its gradient norm is NaN, the others' 0.900 at step 1\u202f240.",
    );
  });

  it("does not say which of two ranks is off", () => {
    expect(remarks(job({ departures: [{ ...DEPARTURE, rank: null }] }))).toEqual([
      {
        kind: "warning",
        title: "The two ranks differ",
        text: "Their loss is 0.900 and 1.10 at step 1\u202f240. Of two nobody can tell which is off.",
      },
    ]);
  });

  it("names the ranks that are lost, that failed, and that recorded nothing", () => {
    const ranks = [
      rank(0, 1, { status: "failed", ended_because: "RuntimeError: connection closed" }),
      rank(1, 1, { status: "lost", last_step: 300 }),
      rank(3, 1, { status: "lost", last_step: null }),
    ];
    expect(remarks(job({ ranks, missing: [2], sharded: true }))).toEqual([
      {
        kind: "warning",
        title: "Ranks 1 and 3 are lost",
        text: "Not heard of for 15 seconds, without a word of the end: rank 1 recorded up to step 300, rank 3 recorded no step.",
      },
      { kind: "warning", title: "Rank 0 failed", text: "RuntimeError: connection closed" },
      {
        kind: "info",
        title: "Rank 2 recorded nothing",
        text: "The job has 4 ranks. One that is not watched records nothing, nor does one that died at once.",
      },
      {
        kind: "info",
        title: "The parameters are sharded",
        text: "Each rank measured its own part of the parameters: gradient norms differ from rank to rank, as they should.",
      },
    ]);
  });
});

it("names few ranks one by one, and counts the rest of many", () => {
  expect(namedRanks([2])).toBe("rank 2");
  expect(namedRanks([0, 1, 4])).toBe("ranks 0, 1 and 4");
  expect(namedRanks([1, 2, 3, 4, 5, 6, 7])).toBe("ranks 1, 2, 3, 4, 5, 6 and 7");
  expect(namedRanks(Array.from({ length: 1023 }, (_, i) => i + 1))).toBe("ranks 1, 2, 3, 4, 5, 6 and 1\u202f017 more");
});

it("shows the loss and the gradient norm first, and not what watching costs", () => {
  expect(shownFigures(["overhead", "accuracy", "gradient_norm", "loss"])).toEqual([
    "loss",
    "gradient_norm",
    "accuracy",
  ]);
  expect(shownFigures(["a", "b", "c", "d", "e"])).toEqual(["a", "b", "c", "d"]);
});

it("gives each rank a row: its figures, their distance from the median, and whether something is wrong", () => {
  const ranks = [...job().ranks.slice(0, 3), rank(3, "NaN", { status: "lost", last_step: null, figures: {} })];
  const rows = rankRows(job({ ranks, departures: [DEPARTURE] }), ["loss"]);
  expect(rows.map(({ rank: number, lastStep, isBad }) => [number, lastStep, isBad])).toEqual([
    [0, "1\u202f240", false],
    [1, "1\u202f240", false],
    [2, "1\u202f240", true],
    [3, "n/a", true],
  ]);
  expect(rows.map(({ cells }) => [cells[0]?.value, cells[0]?.distance])).toEqual([
    ["0.900", "\u22120.100"],
    ["1.00", "0"],
    ["3.10", "+2.10"],
    ["n/a", ""],
  ]);
  const alone = { loss: { step: 7, value: "NaN", from_median: null } };
  expect(rankRows(job({ ranks: [rank(0, 1, { figures: alone })] }), ["loss"])[0]?.cells[0]).toEqual({
    value: "NaN",
    distance: "n/a",
    hint: "at step 7, which no other rank has",
  });
});

describe("rankLines", () => {
  const SERIES: RankSeries = {
    scalar: "loss",
    ranks: [0, 2],
    firstStep: Float64Array.of(0, 10),
    lastStep: Float64Array.of(9, 19),
    minimum: Float32Array.of(1, 2, 3, Number.NaN),
    maximum: Float32Array.of(1, 2.5, 4, Number.NaN),
    state: Uint8Array.of(1, 1, 2, 0),
    low: Float32Array.of(1, 2),
    high: Float32Array.of(4, 2.5),
  };

  it("has the first rank, the band of all ranks, then the others", () => {
    const lines = rankLines(SERIES, job());
    expect(lines.statistics).toEqual(["rank 0", "all ranks", "rank 2"]);
    expect([...lines.minimum]).toEqual([1, 2, 1, 2, 3, Number.NaN]);
    expect([...lines.maximum]).toEqual([1, 2.5, 4, 2.5, 4, Number.NaN]);
    expect([...lines.state]).toEqual([2, 1]);
  });

  it("has the rank that departs in this figure first", () => {
    const lines = rankLines(SERIES, job({ departures: [DEPARTURE] }));
    expect(lines.statistics).toEqual(["rank 2", "all ranks", "rank 0"]);
    expect([...lines.maximum]).toEqual([4, Number.NaN, 4, 2.5, 1, 2.5]);
    const elsewhere = rankLines(SERIES, job({ departures: [{ ...DEPARTURE, scalar: "gradient_norm" }] }));
    expect(elsewhere.statistics).toEqual(["rank 0", "all ranks", "rank 2"]);
  });

  it("has lines only of those that depart where there are many", () => {
    const many: RankSeries = {
      ...SERIES,
      ranks: Array.from({ length: 9 }, (_, i) => i),
      minimum: Float32Array.from({ length: 18 }, (_, i) => i),
      maximum: Float32Array.from({ length: 18 }, (_, i) => i),
      state: new Uint8Array(18).fill(1),
    };
    expect(rankLines(many, job()).statistics).toEqual(["all ranks"]);
    const lines = rankLines(many, job({ departures: [DEPARTURE] }));
    expect(lines.statistics).toEqual(["rank 2", "all ranks"]);
    expect([...lines.maximum]).toEqual([4, 5, 4, 2.5]);
  });
});
