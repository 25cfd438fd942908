import { describe, expect, it } from "vitest";
import { Loader } from "./loader";

/** A fetch that ends when the test says so. */
function controlled() {
  const started: Array<{ answer: (value: string) => void; fail: (error: Error) => void; signal: AbortSignal }> = [];
  const fetch = (signal: AbortSignal) =>
    new Promise<string>((answer, fail) => {
      started.push({ answer, fail, signal });
    });
  return { started, fetch };
}

function settle(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve));
}

describe("Loader", () => {
  it("waits for what is under way, then does only the last of the jobs that came in", async () => {
    const { started, fetch } = controlled();
    const seen: string[] = [];
    const loader = new Loader<string>();
    const job = { identity: "a", fetch, done: (value: string) => seen.push(value), failed: () => seen.push("failed") };
    loader.load(job);
    loader.load({ ...job, done: () => seen.push("overtaken") });
    loader.load(job);
    expect(started).toHaveLength(1);
    started[0]?.answer("first");
    await settle();
    expect(started).toHaveLength(2);
    started[1]?.answer("second");
    await settle();
    expect(seen).toEqual(["first", "second"]);
    expect(started).toHaveLength(2);
  });

  it("ends what is under way for something else, whose answer then counts for nothing", async () => {
    const { started, fetch } = controlled();
    const seen: string[] = [];
    const loader = new Loader<string>();
    const done = (value: string) => seen.push(value);
    const failed = () => seen.push("failed");
    loader.load({ identity: "a", fetch, done, failed });
    loader.load({ identity: "b", fetch, done, failed });
    expect(started[0]?.signal.aborted).toBe(true);
    started[0]?.fail(new Error("aborted"));
    started[1]?.answer("b");
    await settle();
    expect(seen).toEqual(["b"]);
  });

  it("reports an error and goes on with the next job", async () => {
    const { started, fetch } = controlled();
    const seen: string[] = [];
    const loader = new Loader<string>();
    const job = {
      identity: "a",
      fetch,
      done: (value: string) => seen.push(value),
      failed: (error: unknown) => seen.push((error as Error).message),
    };
    loader.load(job);
    loader.load(job);
    started[0]?.fail(new Error("gone"));
    await settle();
    started[1]?.answer("back");
    await settle();
    expect(seen).toEqual(["gone", "back"]);
  });

  it("tells nobody anything after it was stopped", async () => {
    const { started, fetch } = controlled();
    const seen: string[] = [];
    const loader = new Loader<string>();
    loader.load({ identity: "a", fetch, done: (value) => seen.push(value), failed: () => seen.push("failed") });
    loader.stop();
    started[0]?.answer("late");
    await settle();
    expect(seen).toEqual([]);
    expect(started[0]?.signal.aborted).toBe(true);
  });
});
