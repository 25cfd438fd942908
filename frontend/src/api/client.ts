/** Asks the plugin's routes, below the page's own address, and turns the answers into typed records. */

import { arrayOf, type Decoded, decode } from "./binary";
import type {
  Anomalies,
  Frame,
  Histograms,
  LayerTable,
  Matrix,
  Profile,
  ProfileKind,
  Profiles,
  Series,
  Session,
  SessionList,
  Source,
  StepRange,
} from "./types";

/** The server answered, and said no: `message` is its sentence. */
export class Refused extends Error {
  constructor(
    message: string,
    readonly status: number,
  ) {
    super(message);
  }
}

/** No answer came: the server is down, or the network is. */
export class Unreachable extends Error {}

type Parameters = Readonly<Record<string, string | number | undefined>>;

/** One statistic of each row, at most `width` columns wide. */
export interface MatrixRequest extends Source {
  readonly statistic: string;
  readonly width: number;
  readonly range: StepRange | null;
}

export interface RowRequest extends Source {
  readonly row: number;
  readonly width: number;
  readonly range: StepRange | null;
}

export interface SeriesRequest extends RowRequest {
  readonly statistics: readonly string[];
}

/** Columns of a profile over the steps; of whole traces where `row` is null. */
export interface ProfileSeriesRequest {
  readonly run: string;
  readonly kind: ProfileKind;
  readonly row: number | null;
  readonly columns: readonly string[];
  readonly width: number;
  readonly range: StepRange | null;
}

/** Returns a URL that is relative, so that it works under any path prefix. */
export function url(route: string, parameters: Parameters = {}): string {
  const query = Object.entries(parameters)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => `${key}=${encodeURIComponent(String(value))}`)
    .join("&");
  return query ? `./${route}?${query}` : `./${route}`;
}

async function request(address: string, signal: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    // Without "no-store" Chrome makes equal requests wait for one another, even where nothing may be cached.
    response = await fetch(address, { cache: "no-store", signal });
  } catch (error) {
    if (signal.aborted) throw error;
    throw new Unreachable("The server does not answer.");
  }
  if (!response.ok) throw new Refused(await sentenceOf(response), response.status);
  return response;
}

async function sentenceOf(response: Response): Promise<string> {
  const fallback = `The server answered with status ${response.status}.`;
  try {
    const body: unknown = await response.json();
    const error = (body as { error?: unknown }).error;
    return typeof error === "string" ? error : fallback;
  } catch {
    return fallback;
  }
}

async function json<T>(address: string, signal: AbortSignal): Promise<T> {
  return (await request(address, signal)).json() as Promise<T>;
}

async function binary(address: string, signal: AbortSignal): Promise<Decoded> {
  return decode(await (await request(address, signal)).arrayBuffer());
}

function sourceParameters(source: Source, range: StepRange | null): Parameters {
  return {
    run: source.run,
    kind: source.kind,
    by: source.byLayer ? "layer" : undefined,
    first: range?.first,
    last: range?.last,
  };
}

/** The most columns that the server sends. */
const MOST_COLUMNS = 4096;

function allowedWidth(width: number): number {
  return Math.min(MOST_COLUMNS, Math.max(1, Math.round(width)));
}

function columnsOf(decoded: Decoded): { firstStep: Float64Array; lastStep: Float64Array } {
  return {
    firstStep: arrayOf(decoded, "first_step", Float64Array),
    lastStep: arrayOf(decoded, "last_step", Float64Array),
  };
}

export function fetchSessions(signal: AbortSignal): Promise<SessionList> {
  return json(url("sessions"), signal);
}

/** Returns null where nothing has changed since `revision`. */
export async function fetchSession(run: string, revision: string | null, signal: AbortSignal): Promise<Session | null> {
  const address = url("session", { run, revision: revision ?? undefined });
  const answer = await json<Session & { unchanged?: boolean }>(address, signal);
  return answer.unchanged ? null : answer;
}

export function fetchLayers(run: string, signal: AbortSignal): Promise<LayerTable> {
  return json(url("layers", { run }), signal);
}

export async function fetchSteps(run: string, signal: AbortSignal): Promise<Float64Array> {
  const { arrays } = await binary(url("steps", { run }), signal);
  return Float64Array.from(arrays.get("steps") ?? []);
}

export async function fetchMatrix(wanted: MatrixRequest, signal: AbortSignal): Promise<Matrix> {
  const parameters = { statistic: wanted.statistic, width: allowedWidth(wanted.width) };
  const decoded = await binary(url("matrix", { ...sourceParameters(wanted, wanted.range), ...parameters }), signal);
  return {
    ...columnsOf(decoded),
    rows: decoded.head.rows as number[],
    frames: decoded.head.frames as number,
    minimum: arrayOf(decoded, "minimum", Float32Array),
    maximum: arrayOf(decoded, "maximum", Float32Array),
    state: arrayOf(decoded, "state", Uint8Array),
  };
}

export async function fetchSeries(wanted: SeriesRequest, signal: AbortSignal): Promise<Series> {
  const parameters = { row: wanted.row, statistics: wanted.statistics.join(","), width: allowedWidth(wanted.width) };
  const decoded = await binary(url("series", { ...sourceParameters(wanted, wanted.range), ...parameters }), signal);
  return {
    ...columnsOf(decoded),
    statistics: wanted.statistics,
    minimum: arrayOf(decoded, "minimum", Float32Array),
    maximum: arrayOf(decoded, "maximum", Float32Array),
    state: arrayOf(decoded, "state", Uint8Array),
  };
}

export async function fetchFrame(run: string, step: number | null, signal: AbortSignal): Promise<Frame> {
  const { head, arrays } = await binary(url("frame", { run, step: step ?? undefined }), signal);
  const matrices = Object.fromEntries([...arrays].map(([name, array]) => [name, Float64Array.from(array)]));
  return {
    step: head.step as number,
    columns: head.columns as string[],
    scalars: head.scalars as Record<string, number | string>,
    matrices,
  };
}

interface ProfileHead {
  readonly step: number | null;
  readonly first_step: number | null;
  readonly columns: readonly string[];
}

/** Returns the newest profile of each kind up to `step`, or the newest of all where that is null. */
export async function fetchProfiles(
  run: string,
  kinds: readonly ProfileKind[],
  step: number | null,
  signal: AbortSignal,
): Promise<Profiles> {
  const decoded = await binary(url("profile", { run, kinds: kinds.join(","), step: step ?? undefined }), signal);
  const heads = decoded.head.profiles as Record<ProfileKind, ProfileHead>;
  const profileOf = (kind: ProfileKind): Profile => ({
    step: heads[kind].step,
    firstStep: heads[kind].first_step,
    columns: heads[kind].columns,
    values: arrayOf(decoded, kind, Float64Array),
  });
  return Object.fromEntries(kinds.map((kind) => [kind, profileOf(kind)]));
}

/** Returns the wanted columns as statistics named after their kind: "timing.forward". */
export async function fetchProfileSeries(wanted: ProfileSeriesRequest, signal: AbortSignal): Promise<Series> {
  const { run, kind, row, range } = wanted;
  const steps = { width: allowedWidth(wanted.width), first: range?.first, last: range?.last };
  const address =
    row === null ? url("trace_series", { run, ...steps }) : url("profile_series", { run, kind, row, ...steps });
  const decoded = await binary(address, signal);
  const columns = columnsOf(decoded);
  const count = columns.firstStep.length;
  const all = decoded.head.columns as string[];
  const chosen = (name: string) => {
    const values = arrayOf(decoded, name, Float32Array);
    const picked = new Float32Array(wanted.columns.length * count);
    wanted.columns.forEach((column, i) => {
      const at = all.indexOf(column) * count;
      picked.set(values.subarray(at, at + count), i * count);
    });
    return picked;
  };
  return {
    ...columns,
    statistics: wanted.columns.map((column) => `${kind}.${column}`),
    minimum: chosen("minimum"),
    maximum: chosen("maximum"),
    state: arrayOf(decoded, "state", Uint8Array),
  };
}

export function fetchAnomalies(run: string, signal: AbortSignal): Promise<Anomalies> {
  return json(url("anomalies", { run }), signal);
}

export async function fetchHistograms(wanted: RowRequest, signal: AbortSignal): Promise<Histograms> {
  const parameters = { row: wanted.row, width: allowedWidth(wanted.width) };
  const decoded = await binary(url("histograms", { ...sourceParameters(wanted, wanted.range), ...parameters }), signal);
  return {
    ...columnsOf(decoded),
    bins: arrayOf(decoded, "bins", Int32Array),
    counts: arrayOf(decoded, "counts", Float64Array),
    counted: arrayOf(decoded, "counted", Float64Array),
    total: arrayOf(decoded, "total", Float64Array),
  };
}

/**
 * Returns the histogram of one row at `step`, or where that step has none, at the newest step before it that has one.
 * Histograms may be taken on rarer steps than statistics. No columns: there is none yet.
 */
export async function fetchHistogramAt(source: Source & { row: number }, step: number, signal: AbortSignal) {
  const at = (wanted: number) => ({ ...source, width: 1, range: { first: wanted, last: wanted } });
  const exact = await fetchHistograms(at(step), signal);
  if (exact.lastStep.length > 0) return exact;
  const before = { ...source, width: MOST_COLUMNS, range: { first: 0, last: step } };
  const newest = (await fetchHistograms(before, signal)).lastStep.at(-1);
  return newest === undefined ? exact : fetchHistograms(at(newest), signal);
}
