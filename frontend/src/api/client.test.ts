import { afterEach, describe, expect, it, vi } from "vitest";
import { fetchHistogramAt, fetchSession, fetchSessions, Refused, Unreachable, url } from "./client";

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
