import { Worker } from "node:worker_threads";
import { GptossError, oneLine } from "./errors.js";
import type { Decoder } from "./text-stream.js";

/** What the thread is asked; `argument` is a text to encode or ids to decode. */
export type TokenizerCall = {
  id: number;
  method: "describe" | "encode" | "decode";
  argument: unknown;
};
/** The answer to `describe`; null where there is no tokenizer. */
export type Description = { specials: [string, number][]; longest: number } | null;
export type TokenizerAnswer = { id: number; value?: unknown; error?: string };

export interface TokenizerOptions {
  /** Most that a call may take; 10 if it is left out. */
  seconds?: number;
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: GptossError): void;
  timer: NodeJS.Timeout;
}

const DEFAULT_SECONDS = 10;
const MOST_MEGABYTES = 1024; // of the thread's heap

/**
 * A package's tokenizer, in a thread of its own. Its file comes from strangers and holds patterns
 * that may take forever or fill the memory; there they take a limited time and memory, and a
 * server's other requests go on meanwhile.
 */
export class Tokenizer implements Decoder {
  private worker: Worker | undefined;
  private readonly waiting = new Map<number, Waiting>();
  private calls = 0;
  private readonly milliseconds: number;
  private specials: ReadonlyMap<string, number> = new Map();
  private longest = 0;

  private constructor(
    private readonly folder: string,
    options: TokenizerOptions,
  ) {
    this.milliseconds = 1000 * (options.seconds ?? DEFAULT_SECONDS);
  }

  /** Opens the tokenizer of a package folder; returns undefined if it has none. */
  static async open(
    folder: string,
    options: TokenizerOptions = {},
  ): Promise<Tokenizer | undefined> {
    const tokenizer = new Tokenizer(folder, options);
    try {
      const description = (await tokenizer.call("describe", null)) as Description;
      if (description !== null) {
        tokenizer.specials = new Map(description.specials);
        tokenizer.longest = description.longest;
        return tokenizer;
      }
      await tokenizer.close();
      return undefined;
    } catch (error) {
      await tokenizer.close();
      throw error;
    }
  }

  /** Ids of the special tokens, which never show in a text, by what they are written as. */
  get specialTokens(): ReadonlyMap<string, number> {
    return this.specials;
  }

  /**
   * Bytes of the longest token: a text of more bytes than n such tokens have has more than n
   * tokens.
   */
  get longestToken(): number {
    return this.longest;
  }

  async encode(text: string): Promise<number[]> {
    return (await this.call("encode", text)) as number[];
  }

  /** Returns a text without special tokens, U+FFFD for bytes that are no UTF-8. */
  async decode(ids: readonly number[]): Promise<string> {
    return (await this.call("decode", ids)) as string;
  }

  /** Ends the thread; calls that wait are refused. */
  async close(): Promise<void> {
    await this.stop("it closed");
  }

  private call(method: TokenizerCall["method"], argument: unknown): Promise<unknown> {
    this.worker ??= this.start();
    const { worker } = this;
    const id = this.calls;
    this.calls += 1;
    return new Promise((resolve, reject) => {
      const seconds = this.milliseconds / 1000;
      const late = `found no answer to ${method} in ${seconds} seconds; give it less text`;
      const timer = setTimeout(() => void this.stop(late), this.milliseconds);
      this.waiting.set(id, { resolve, reject, timer });
      worker.ref();
      worker.postMessage({ id, method, argument } satisfies TokenizerCall);
    });
  }

  private start(): Worker {
    const worker = new Worker(new URL("tokenizer-worker.js", import.meta.url), {
      workerData: this.folder,
      resourceLimits: { maxOldGenerationSizeMb: MOST_MEGABYTES },
    });
    worker.on("message", ({ id, value, error }: TokenizerAnswer) => {
      const call = this.waiting.get(id);
      if (call === undefined) return;
      this.waiting.delete(id);
      clearTimeout(call.timer);
      if (this.waiting.size === 0) worker.unref(); // an idle thread keeps no process alive
      if (error === undefined) call.resolve(value);
      else call.reject(new GptossError(error));
    });
    worker.on("error", (error) => {
      if (worker === this.worker) void this.stop(`its thread ended (${oneLine(error)})`);
    });
    return worker;
  }

  /** Ends the thread and refuses what waits for it; the next call starts another. */
  private async stop(reason: string): Promise<void> {
    const { worker } = this;
    this.worker = undefined;
    for (const { reject, timer } of this.waiting.values()) {
      clearTimeout(timer);
      reject(new GptossError(`${this.folder}: tokenizer: ${reason}`));
    }
    this.waiting.clear();
    await worker?.terminate();
  }
}
