import { describe, expect, it } from "vitest";
import { arrayOf, decode } from "./binary";

/** Builds an answer as http_api.md describes it. */
function answer(head: object, ...arrays: ArrayBufferView[]): ArrayBuffer {
  const text = JSON.stringify(head);
  const padding = (8 - ((4 + text.length) % 8)) % 8;
  const parts: Uint8Array[] = [new Uint8Array(4), new TextEncoder().encode(text + " ".repeat(padding))];
  new DataView((parts[0] as Uint8Array).buffer).setUint32(0, text.length + padding, true);
  for (const array of arrays) {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    parts.push(bytes, new Uint8Array((8 - (bytes.length % 8)) % 8));
  }
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole.buffer;
}

const ARRAYS = [
  { name: "state", dtype: "uint8", shape: [1, 3] },
  { name: "minimum", dtype: "float32", shape: [1, 3] },
  { name: "first_step", dtype: "float64", shape: [3] },
  { name: "bins", dtype: "int32", shape: [1] },
];

describe("decode", () => {
  it("finds each array at the next multiple of eight bytes", () => {
    const decoded = decode(
      answer(
        { rows: [4], arrays: ARRAYS },
        Uint8Array.of(0, 1, 2),
        Float32Array.of(1.5, Number.NaN, -2),
        Float64Array.of(0, 10, 20),
        Int32Array.of(513),
      ),
    );
    expect(decoded.head.rows).toEqual([4]);
    expect(arrayOf(decoded, "state", Uint8Array)).toEqual(Uint8Array.of(0, 1, 2));
    expect(arrayOf(decoded, "minimum", Float32Array)).toEqual(Float32Array.of(1.5, Number.NaN, -2));
    expect(arrayOf(decoded, "first_step", Float64Array)).toEqual(Float64Array.of(0, 10, 20));
    expect(arrayOf(decoded, "bins", Int32Array)).toEqual(Int32Array.of(513));
  });

  it("takes an answer without arrays, and arrays without values", () => {
    expect(decode(answer({ arrays: [] })).arrays.size).toBe(0);
    const empty = decode(answer({ arrays: [{ name: "counts", dtype: "float64", shape: [0, 9] }] }));
    expect(arrayOf(empty, "counts", Float64Array)).toHaveLength(0);
  });

  it("says what is wrong with a malformed answer", () => {
    expect(() => decode(new ArrayBuffer(2))).toThrow("The answer has 2 bytes, too few for a head.");
    expect(() => decode(Uint8Array.of(200, 0, 0, 0, 123, 125).buffer)).toThrow(
      "The answer's head should have 200 bytes, but the answer ends before.",
    );
    expect(() => decode(Uint8Array.of(4, 0, 0, 0, 110, 111, 112, 101).buffer)).toThrow(
      "The answer's head is not JSON.",
    );
    expect(() => decode(answer({ rows: [] }))).toThrow("The answer's head lists no arrays.");
    expect(() => decode(answer({ arrays: [ARRAYS[2]] }, Float64Array.of(1)))).toThrow(
      'The answer ends within the array "first_step".',
    );
    expect(() => decode(answer({ arrays: [{ name: "x", dtype: "int64", shape: [0] }] }))).toThrow(
      'The array "x" has the unknown type "int64".',
    );
  });

  it("refuses an array of another type than wanted", () => {
    const decoded = decode(answer({ arrays: [ARRAYS[3]] }, Int32Array.of(1)));
    expect(() => arrayOf(decoded, "bins", Float32Array)).toThrow(
      'The answer has no array "bins" of type Float32Array.',
    );
  });
});
