export { type OpenOptions } from "./engine.js";
export { GptossError } from "./package.js";
export { Sampler, type Sampling } from "./sampling.js";
export { type GenerateOptions, Generation, type KVCache, Session } from "./session.js";
export { verify } from "./verify.js";
