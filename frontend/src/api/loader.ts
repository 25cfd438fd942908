/** Fetches one thing again and again, as what it depends on changes, without two fetches of it under way at once. */

export interface Job<T> {
  /** Two jobs of one identity ask for newer states of the same thing; the answer to one is worth showing for the other. */
  readonly identity: string;
  fetch(signal: AbortSignal): Promise<T>;
  done(value: T): void;
  failed(error: unknown): void;
}

export class Loader<T> {
  #running: { identity: string; controller: AbortController } | null = null;
  #next: Job<T> | null = null;

  /**
   * Starts the job. One under way for the same identity is waited for, so that a slow server still gets to answer;
   * of the jobs that come in meanwhile only the last one is done. One for another identity is ended.
   */
  load(job: Job<T>): void {
    if (this.#running?.identity === job.identity) {
      this.#next = job;
      return;
    }
    this.stop();
    void this.#run(job);
  }

  /** Ends what is under way. */
  stop(): void {
    this.#running?.controller.abort();
    this.#running = null;
    this.#next = null;
  }

  async #run(job: Job<T>): Promise<void> {
    const controller = new AbortController();
    this.#running = { identity: job.identity, controller };
    try {
      const value = await job.fetch(controller.signal);
      if (!controller.signal.aborted) job.done(value);
    } catch (error) {
      if (!controller.signal.aborted) job.failed(error);
    }
    if (controller.signal.aborted) return;
    const next = this.#next;
    this.#running = null;
    this.#next = null;
    if (next) void this.#run(next);
  }
}
