/** What the plugin answers; `http_api.md` beside the plugin is the contract. */

export type Status = "live" | "finished" | "failed" | "lost";

export interface SessionSummary {
  readonly name: string;
  readonly status: Status;
  readonly last_step: number | null;
  readonly last_written: number | null;
}

export interface SessionList {
  readonly sessions: readonly SessionSummary[];
  /** Sentences about what lies in the log directory and is not shown. */
  readonly notices: readonly string[];
}

export interface KindInfo {
  readonly rows: "layers" | "parameters";
  readonly frames: number;
  readonly description: string;
  readonly histograms: number;
}

export interface Session {
  readonly revision: string;
  readonly name: string;
  readonly status: Status;
  /** Empty where the session does not tell, as `framework`. */
  readonly model: string;
  readonly framework: string;
  /** Seconds since the epoch; null where the session does not tell, as `every`. */
  readonly started: number | null;
  readonly every: number | null;
  /** The share of the training time that watching may cost; null where another rule chooses the steps, as `steps`. */
  readonly overhead_budget: number | null;
  readonly steps: readonly number[] | null;
  /** The share of plain training time that watching has cost so far; null where it was not measured. */
  readonly overhead: number | null;
  /** What a step takes without NeuralDbg; null where it was not measured, as `tracing_seconds`. */
  readonly step_seconds: number | null;
  /** What compiling the measured step took, in all. */
  readonly tracing_seconds: number | null;
  /** Where times, memory and operations of layers are from: the training's own step, or one run eagerly beside it. */
  readonly profiled: "in training" | "apart";
  readonly rank: number;
  readonly world_size: number;
  readonly notices: readonly string[];
  readonly problems: readonly string[];
  readonly ended_because: string;
  readonly first_step: number | null;
  readonly last_step: number | null;
  readonly kinds: Readonly<Record<string, KindInfo>>;
  /** How many steps have a profile of each kind; kinds without any are left out. */
  readonly profiles: Readonly<Record<string, number>>;
  /** In how many steps something went wrong. */
  readonly anomalies: number;
  /** Another one for every layer table; null while there is none. */
  readonly table_revision: string | null;
}

export type Shape = ReadonlyArray<number | null>;

export interface Layer {
  readonly name: string;
  readonly type: string;
  readonly own_name: string;
  readonly input_shapes: readonly Shape[];
  readonly output_shapes: readonly Shape[];
  readonly dtype: string;
  readonly trainable: boolean;
  readonly flops: number | null;
  readonly input_dtypes: readonly string[];
  readonly output_dtypes: readonly string[];
  readonly parameters: number;
}

export interface Parameter {
  readonly name: string;
  readonly layer: number;
  readonly shape: readonly number[];
  readonly dtype: string;
  readonly trainable: boolean;
}

export interface LayerTable {
  readonly layers: readonly Layer[];
  readonly parameters: readonly Parameter[];
}

/** The steps that each column of a decimated picture covers, both ends inclusive. */
export interface Columns {
  readonly firstStep: Float64Array;
  readonly lastStep: Float64Array;
}

export const NOT_MEASURED = 0;
export const MEASURED = 1;
export const NONFINITE = 2;

/** One statistic of every row over the steps; arrays are (rows, columns), row by row. */
export interface Matrix extends Columns {
  readonly rows: readonly number[];
  readonly frames: number;
  readonly minimum: Float32Array;
  readonly maximum: Float32Array;
  readonly state: Uint8Array;
}

/** Several statistics of one row over the steps; `minimum` and `maximum` are (statistics, columns). */
export interface Series extends Columns {
  readonly statistics: readonly string[];
  readonly minimum: Float32Array;
  readonly maximum: Float32Array;
  readonly state: Uint8Array;
}

/** All that was measured at one step: per kind a matrix (rows, columns.length), row by row. */
export interface Frame {
  readonly step: number;
  readonly columns: readonly string[];
  readonly scalars: Readonly<Record<string, number | string>>;
  readonly matrices: Readonly<Record<string, Float64Array>>;
}

/** The kinds of profiles that are asked for. */
export type ProfileKind = "trace" | "timing" | "memory" | "flops";

/** The newest profile of a kind up to a step: (rows, columns.length), row by row; seconds, bytes or operations. */
export interface Profile {
  /** Null where nothing is recorded up to the step that was asked for. */
  readonly step: number | null;
  readonly firstStep: number | null;
  readonly columns: readonly string[];
  readonly values: Float64Array;
}

export type Profiles = Readonly<Partial<Record<ProfileKind, Profile>>>;

export interface Anomaly {
  readonly place: "forward" | "loss" | "backward" | "parameter";
  readonly layer: number | null;
  readonly parameter: number | null;
  /** Counts of values; null where only their being there is known. */
  readonly nan: number | null;
  readonly posinf: number | null;
  readonly neginf: number | null;
}

/** Steps that went wrong with no sound one between them. */
export interface Episode {
  readonly first_step: number;
  readonly last_step: number;
  readonly steps: number;
  /** Those of the first step, in the order in which they arose. */
  readonly anomalies: readonly Anomaly[];
}

export interface Anomalies {
  readonly episodes: readonly Episode[];
  /** How many more episodes there are than those listed. */
  readonly left_out: number;
  /** Steps that went wrong and that the gradient scaler skipped: they belong to no episode. */
  readonly skipped_steps: number;
  readonly last_skipped_step: number | null;
}

/**
 * The distribution of one row over the steps; `counts` is (columns, bins). Where parameters are merged, these are
 * estimates from the values that were `counted`.
 */
export interface Histograms extends Columns {
  readonly bins: Int32Array;
  readonly counts: Float64Array;
  readonly counted: Float64Array;
  readonly total: Float64Array;
}

/** Which values of a session a picture shows. */
export interface Source {
  readonly run: string;
  readonly kind: string;
  /** Merge the parameters of each layer into one row. */
  readonly byLayer: boolean;
}

/** Limits on the steps, both inclusive. */
export interface StepRange {
  readonly first: number;
  readonly last: number;
}
