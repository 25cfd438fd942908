/** Decodes the plugin's binary answers: a JSON head, then arrays at multiples of eight bytes. */

const ALIGNMENT = 8;

const READERS = {
  float32: Float32Array,
  float64: Float64Array,
  int32: Int32Array,
  uint8: Uint8Array,
} as const;

export type DtypeName = keyof typeof READERS;
export type NumberArray = Float32Array | Float64Array | Int32Array | Uint8Array;

interface ArrayHead {
  readonly name: string;
  readonly dtype: DtypeName;
  readonly shape: readonly number[];
}

export interface Decoded {
  readonly head: Readonly<Record<string, unknown>>;
  readonly arrays: ReadonlyMap<string, NumberArray>;
}

/** The answer is not what the contract says; its text tells what is wrong with it. */
export class MalformedAnswer extends Error {}

/**
 * Returns the head and the arrays of an answer. The arrays are views of `buffer`, not copies.
 *
 * Typed arrays have the byte order of the machine, which is little endian wherever a browser runs today.
 */
export function decode(buffer: ArrayBuffer): Decoded {
  if (buffer.byteLength < 4)
    throw new MalformedAnswer(`The answer has ${buffer.byteLength} bytes, too few for a head.`);
  const headLength = new DataView(buffer).getUint32(0, true);
  if (4 + headLength > buffer.byteLength) {
    throw new MalformedAnswer(`The answer's head should have ${headLength} bytes, but the answer ends before.`);
  }
  const head = parseHead(new TextDecoder().decode(new Uint8Array(buffer, 4, headLength)));
  const arrays = new Map<string, NumberArray>();
  let offset = align(4 + headLength);
  for (const { name, dtype, shape } of head.arrays) {
    const Reader = READERS[dtype];
    if (Reader === undefined) throw new MalformedAnswer(`The array "${name}" has the unknown type "${dtype}".`);
    const length = shape.reduce((size, extent) => size * extent, 1);
    const end = offset + length * Reader.BYTES_PER_ELEMENT;
    if (end > buffer.byteLength) throw new MalformedAnswer(`The answer ends within the array "${name}".`);
    arrays.set(name, new Reader(buffer, offset, length));
    offset = align(end);
  }
  return { head, arrays };
}

/** Returns the array `name`, which must be of the wanted type. */
export function arrayOf<T extends NumberArray>(
  decoded: Decoded,
  name: string,
  type: abstract new (...args: never[]) => T,
): T {
  const array = decoded.arrays.get(name);
  if (array instanceof type) return array;
  throw new MalformedAnswer(`The answer has no array "${name}" of type ${type.name}.`);
}

function align(offset: number): number {
  return Math.ceil(offset / ALIGNMENT) * ALIGNMENT;
}

function parseHead(text: string): Record<string, unknown> & { arrays: ArrayHead[] } {
  let head: unknown;
  try {
    head = JSON.parse(text);
  } catch {
    throw new MalformedAnswer("The answer's head is not JSON.");
  }
  if (typeof head !== "object" || head === null || !Array.isArray((head as { arrays?: unknown }).arrays)) {
    throw new MalformedAnswer("The answer's head lists no arrays.");
  }
  return head as Record<string, unknown> & { arrays: ArrayHead[] };
}
