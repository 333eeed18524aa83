/**
 * Returns a document of format 1, which packages had before format 2, as one of format 2: its sizes
 * and the tokens that end a text stood in the model's configuration, and no layer of its cache kept
 * its first tokens. What has another type than it should stays as it is, for the reader of format 2
 * to refuse.
 */
export function upgraded(document: object): object {
  const { model, cache } = document as Record<string, unknown>;
  const sizes = isObject(model) ? model : {};
  return {
    ...document,
    vocab_size: sizes.vocab_size,
    longest: sizes.max_position_embeddings,
    eos_tokens: sizes.eos_token_id,
    cache: Array.isArray(cache) ? cache.map(upgradedLayer) : cache,
  };
}

function upgradedLayer(layer: unknown): unknown {
  return isObject(layer) ? { ...layer, sink_tokens: 0 } : layer;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
