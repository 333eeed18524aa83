/** Manifest format 1: reads what packages had before format 2. */

/**
 * Return a document of format 1 as one of format 2. Its sizes and the tokens that end a text stood
 * in the model's configuration, and no layer of its cache kept its first tokens. What has another
 * type than it should stays as it is, for the checks of format 2 to refuse.
 * @param {Record<string, any>} manifest
 * @returns {Record<string, any>}
 */
export function upgraded(manifest) {
  const { model, cache } = manifest;
  return {
    ...manifest,
    vocab_size: model?.vocab_size,
    longest: model?.max_position_embeddings,
    eos_tokens: model?.eos_token_id ?? [],
    cache: Array.isArray(cache) ? cache.map(upgradedLayer) : cache,
  };
}

/** @param {any} layer */
function upgradedLayer(layer) {
  const isObject = typeof layer === "object" && layer !== null && !Array.isArray(layer);
  return isObject ? { ...layer, sink_tokens: 0 } : layer;
}
