export { type OpenOptions } from "./engine.js";
export { type GenerateOptions, Generation } from "./generation.js";
export { GptossError } from "./package.js";
export { Sampler, type Sampling } from "./sampling.js";
export { type KVCache, Session } from "./session.js";
export { verify } from "./verify.js";
