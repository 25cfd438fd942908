import { afterEach, describe, expect, it, vi } from "vitest";
import {
  fetchHistogramAt,
  fetchProfileSeries,
  fetchProfiles,
  fetchSession,
  fetchSessions,
  Refused,
  Unreachable,
  url,
} from "./client";

afterEach(() => vi.unstubAllGlobals());

function answering(respond: (address: string) => Response | Promise<Response>) {
  const asked: string[] = [];
  vi.stubGlobal("fetch", (address: string, options: RequestInit) => {
    expect(options.cache).toBe("no-store");
    asked.push(address);
    return Promise.resolve(respond(address));
  });
  return asked;
}

const signal = new AbortController().signal;

/** A binary answer of a histogram with the given last steps, all of one bin. */
function histograms(steps: number[]): Response {
  const array = (name: string, dtype: string, shape: number[]) => ({ name, dtype, shape });
  const head = JSON.stringify({
    arrays: [
      array("first_step", "float64", [steps.length]),
      array("last_step", "float64", [steps.length]),
      array("counts", "float64", [steps.length, 1]),
      array("counted", "float64", [steps.length]),
      array("total", "float64", [steps.length]),
      array("bins", "int32", [1]),
    ],
  });
  const padded = head.padEnd(Math.ceil((4 + head.length) / 8) * 8 - 4);
  const bytes = new Uint8Array(4 + padded.length + 40 * steps.length + 8);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, padded.length, true);
  bytes.set(new TextEncoder().encode(padded), 4);
  [...steps, ...steps, ...steps, ...steps, ...steps].forEach((value, i) => {
    view.setFloat64(4 + padded.length + 8 * i, value, true);
  });
  return new Response(bytes);
}

type Listed = readonly [name: string, array: Float64Array | Float32Array | Uint8Array, shape: readonly number[]];

/** A binary answer with a head and arrays. */
function answer(told: Record<string, unknown>, ...listed: Listed[]): Response {
  const dtypes: Record<number, string> = { 8: "float64", 4: "float32", 1: "uint8" };
  const arrays = listed.map(([name, array, shape]) => ({ name, dtype: dtypes[array.BYTES_PER_ELEMENT], shape }));
  const aligned = (length: number) => Math.ceil(length / 8) * 8;
  const head = JSON.stringify({ ...told, arrays });
  const padded = head.padEnd(aligned(4 + head.length) - 4);
  const size = listed.reduce((sum, [, array]) => sum + aligned(array.byteLength), 4 + padded.length);
  const bytes = new Uint8Array(size);
  new DataView(bytes.buffer).setUint32(0, padded.length, true);
  bytes.set(new TextEncoder().encode(padded), 4);
  let offset = 4 + padded.length;
  for (const [, array] of listed) {
    bytes.set(new Uint8Array(array.buffer), offset);
    offset += aligned(array.byteLength);
  }
  return new Response(bytes);
}

describe("fetchProfiles", () => {
  it("has each kind with a step of its own, or none yet", async () => {
    const timing = { step: 40, first_step: 0, columns: ["calls", "forward"] };
    const flops = { step: null, first_step: 90, columns: ["forward"] };
    const asked = answering(() =>
      answer(
        { profiles: { timing, flops } },
        ["timing", Float64Array.of(1, 0.5, 2, 0.25), [2, 2]],
        ["flops", new Float64Array(), [0, 1]],
      ),
    );
    expect(await fetchProfiles("a", ["timing", "flops"], 45, signal)).toEqual({
      timing: { step: 40, firstStep: 0, columns: ["calls", "forward"], values: Float64Array.of(1, 0.5, 2, 0.25) },
      flops: { step: null, firstStep: 90, columns: ["forward"], values: new Float64Array() },
    });
    await fetchProfiles("a", ["timing", "flops"], null, signal);
    expect(asked).toEqual(["./profile?run=a&kinds=timing%2Cflops&step=45", "./profile?run=a&kinds=timing%2Cflops"]);
  });
});

describe("fetchProfileSeries", () => {
  const wanted = { run: "a", columns: ["backward", "calls"], width: 9, range: { first: 5, last: 20 } };
  const respond = () =>
    answer(
      { columns: ["calls", "forward", "backward"] },
      ["first_step", Float64Array.of(5, 10), [2]],
      ["last_step", Float64Array.of(9, 20), [2]],
      ["minimum", Float32Array.of(1, 2, 3, 4, 5, 6), [3, 2]],
      ["maximum", Float32Array.of(7, 8, 9, 10, 11, 12), [3, 2]],
      ["state", Uint8Array.of(1, 0), [2]],
    );

  it("takes the wanted columns out, in their order, under names of their own", async () => {
    const asked = answering(respond);
    const series = await fetchProfileSeries({ ...wanted, kind: "timing", row: 3 }, signal);
    expect(series.statistics).toEqual(["timing.backward", "timing.calls"]);
    expect(series.minimum).toEqual(Float32Array.of(5, 6, 1, 2));
    expect(series.maximum).toEqual(Float32Array.of(11, 12, 7, 8));
    expect(series.lastStep).toEqual(Float64Array.of(9, 20));
    expect(asked).toEqual(["./profile_series?run=a&kind=timing&row=3&width=9&first=5&last=20"]);
  });

  it("asks for whole traces where it is of no layer", async () => {
    const asked = answering(respond);
    await fetchProfileSeries({ ...wanted, kind: "trace", row: null }, signal);
    expect(asked).toEqual(["./trace_series?run=a&width=9&first=5&last=20"]);
  });
});

describe("url", () => {
  it("is relative, escapes names and leaves out what is not said", () => {
    expect(url("sessions")).toBe("./sessions");
    expect(url("frame", { run: "a b/c&d", step: undefined })).toBe("./frame?run=a%20b%2Fc%26d");
  });
});

describe("errors", () => {
  it("carry the server's sentence", async () => {
    answering(() => new Response('{"error": "There is no run \\"x\\"."}', { status: 404 }));
    await expect(fetchSessions(signal)).rejects.toThrow(new Refused('There is no run "x".', 404));
  });

  it("have a sentence of their own where the server says nothing", async () => {
    answering(() => new Response("<html>", { status: 502 }));
    await expect(fetchSessions(signal)).rejects.toThrow("The server answered with status 502.");
  });

  it("tell a server that is down from one that says no", async () => {
    answering(() => Promise.reject(new TypeError("Failed to fetch")));
    await expect(fetchSessions(signal)).rejects.toThrow(Unreachable);
  });
});

describe("fetchSession", () => {
  it("returns null where nothing has changed", async () => {
    const asked = answering(() => new Response('{"revision": "7", "unchanged": true}'));
    expect(await fetchSession("a", "7", signal)).toBeNull();
    expect(asked).toEqual(["./session?run=a&revision=7"]);
  });
});

describe("fetchHistogramAt", () => {
  const source = { run: "a", kind: "gradients", byLayer: true, row: 2 };

  it("asks once where the step has a histogram", async () => {
    const asked = answering(() => histograms([40]));
    expect((await fetchHistogramAt(source, 40, signal)).lastStep).toEqual(Float64Array.of(40));
    expect(asked).toEqual(["./histograms?run=a&kind=gradients&by=layer&first=40&last=40&row=2&width=1"]);
  });

  it("falls back to the newest step before it that has one", async () => {
    const asked = answering((address) => histograms(address.includes("first=45") ? [] : [20, 40]));
    await fetchHistogramAt(source, 45, signal);
    expect(asked.map((address) => /first=\d+&last=\d+/.exec(address)?.[0])).toEqual([
      "first=45&last=45",
      "first=0&last=45",
      "first=40&last=40",
    ]);
  });
});
