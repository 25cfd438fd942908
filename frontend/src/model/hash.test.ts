import { describe, expect, it } from "vitest";
import { type Link, parseLink, writeLink } from "./hash";

const NOTHING: Link = { view: null, run: null, row: null, step: null };

describe("parseLink", () => {
  it("reads all that a link carries", () => {
    const hash =
      "#neuraldbg&p.neuraldbg.view=gradients&p.neuraldbg.run=mnist%2Frun%201&p.neuraldbg.row=Conv2D_1&p.neuraldbg.step=1240";
    expect(parseLink(hash)).toEqual({ view: "gradients", run: "mnist/run 1", row: "Conv2D_1", step: 1240 });
  });

  it("takes what is missing or malformed as not said", () => {
    expect(parseLink("")).toEqual(NOTHING);
    expect(parseLink("#scalars&runSelectionState=abc")).toEqual(NOTHING);
    expect(parseLink("#neuraldbg&p.neuraldbg.view=nothing&p.neuraldbg.step=-3&p.neuraldbg.run=%E0%A4%A")).toEqual(
      NOTHING,
    );
    expect(parseLink("#neuraldbg&p.neuraldbg.step=1e3&p.neuraldbg.run=&p.neuraldbg.row")).toEqual(NOTHING);
  });
});

describe("writeLink", () => {
  it("is read back as what was written", () => {
    const link: Link = { view: "activations", run: "a&b=c d", row: "Dense_1", step: 0 };
    expect(parseLink(writeLink("", link))).toEqual(link);
  });

  it("leaves other tokens alone and takes its own old ones out", () => {
    const before = "#neuraldbg&darkMode=true&p.neuraldbg.step=3&p.other.step=4";
    expect(writeLink(before, { ...NOTHING, view: "overview" })).toBe(
      "#neuraldbg&darkMode=true&p.other.step=4&p.neuraldbg.view=overview",
    );
  });
});
