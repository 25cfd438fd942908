import { describe, expect, it } from "vitest";
import type { Anomaly, Episode, LayerTable } from "../api/types";
import { episodeTitle, firstText, followedText, laterText, placeText, skippedText } from "./anomalies";

function layer(name: string, own_name: string) {
  const shapes = { input_shapes: [], output_shapes: [], input_dtypes: [], output_dtypes: [] };
  return { ...shapes, name, own_name, type: "Linear", dtype: "", trainable: true, flops: null, parameters: 0 };
}

const TABLE: LayerTable = {
  layers: [layer("Linear_1", "0.1"), layer("Linear_2", "0.2"), layer("Output", "Output")],
  parameters: [{ name: "weight", layer: 1, shape: [3], dtype: "", trainable: true }],
};

function anomaly(place: Anomaly["place"], layer: number | null, counts: Partial<Anomaly> = {}): Anomaly {
  return {
    place,
    layer,
    parameter: place === "parameter" ? 0 : null,
    nan: null,
    posinf: null,
    neginf: null,
    ...counts,
  };
}

function episode(...anomalies: Anomaly[]): Episode {
  return { first_step: 137, last_step: 137, steps: 1, anomalies };
}

const title = (first: Anomaly) => episodeTitle(episode(first), TABLE);

describe("the title", () => {
  it("tells step, values, layer and place", () => {
    expect(title(anomaly("forward", 1, { nan: 3, posinf: 0, neginf: 0 }))).toBe(
      "Step 137: NaN first in 0.2 (Linear_2), forward",
    );
    expect(title(anomaly("backward", 2, { nan: 0, posinf: 0, neginf: 2 }))).toBe(
      "Step 137: Inf first in Output, backward",
    );
    expect(title(anomaly("parameter", 1, { nan: 1, posinf: 1, neginf: 0 }))).toBe(
      "Step 137: NaN and Inf first in the gradient of weight in 0.2 (Linear_2)",
    );
    expect(title(anomaly("loss", null))).toBe("Step 137: NaN or Inf first in the loss");
  });

  it("does without a table, or anything to tell", () => {
    expect(placeText(anomaly("forward", 7), null)).toBe("layer 7, forward");
    expect(placeText({ ...anomaly("parameter", 1), parameter: 9 }, TABLE)).toBe(
      "the gradient of a parameter in 0.2 (Linear_2)",
    );
    expect(episodeTitle(episode(), TABLE)).toBe("Step 137: not finite");
  });
});

describe("the text", () => {
  it("counts values where they were counted", () => {
    expect(firstText(anomaly("forward", 1, { nan: 12, posinf: 1, neginf: 0 }))).toBe(
      "12 NaN, 1 +Inf in the layer's output.",
    );
    expect(firstText(anomaly("backward", 1))).toBe(
      "Values that are not finite in the gradient of the loss by the layer's output.",
    );
  });

  it("tells what followed, in order, as far as there is room", () => {
    const all = episode(anomaly("forward", 1), anomaly("forward", 2), anomaly("loss", null), anomaly("parameter", 1));
    expect(followedText(all, TABLE, 5)).toBe("Output, forward; the loss; the gradient of weight in 0.2 (Linear_2)");
    expect(followedText(all, TABLE, 1)).toBe("Output, forward; and 2 more");
    expect(followedText(episode(anomaly("loss", null)), TABLE, 5)).toBe("");
  });

  it("tells how long it went on", () => {
    expect(laterText(episode())).toBe("");
    expect(laterText({ ...episode(), last_step: 160, steps: 4 })).toBe(
      "Not finite in 3 later steps either, up to step 160.",
    );
  });

  it("tells what the gradient scaler skipped", () => {
    expect(skippedText(1, 20)).toContain("skipped step 20:");
    expect(skippedText(3, 300)).toContain("skipped 3 steps, the last at 300:");
  });
});
