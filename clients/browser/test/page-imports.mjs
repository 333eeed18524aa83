/**
 * Lets tests import the page's modules: what a browser finds below /node_modules comes from the
 * folder of that name.
 */
import { register } from "node:module";

const hooks = `
const ORT = "/node_modules/onnxruntime-web/dist/ort.wasm.bundle.min.mjs";
export function resolve(name, context, next) {
  // Tests give sessions a graph of their own, and need no more of ONNX Runtime than its tensors.
  return next(name === ORT ? "onnxruntime-common" : name, context);
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
