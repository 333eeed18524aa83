/** Runtime: says whether an ONNX Runtime is new enough for a package. */
import { ClientError } from "./errors.mjs";

/** What every package ran on before the manifest said it. */
const FIRST_VERSION = "1.28";
/** What has another form for older ones, if it is of target ort. */
const NEW_VERSION = "1.32";

/**
 * Throw a ClientError where a package needs a newer ONNX Runtime than this one.
 * @param {import("./manifest.mjs").Manifest} manifest  checked
 * @param {string} found  its version
 */
export function checkRuntime({ onnxruntime: least = FIRST_VERSION, target, ops }, found) {
  if (!isOlder(found, least)) return;
  const older = ops.some((op) => op?.name === "QMoE")
    ? "--experts int8"
    : `--onnxruntime ${FIRST_VERSION}`;
  const cure =
    target === "ort" && !isOlder(least, NEW_VERSION)
      ? `export it with --target ort ${older}`
      : "use that or a newer one";
  throw new ClientError(`this package needs ONNX Runtime ${least}, found ${found}: ${cure}`);
}

/**
 * Compare major and minor as numbers: 1.9 is older than 1.28.
 * @param {string} version
 * @param {string} least
 */
function isOlder(version, least) {
  const [major, minor] = version.split(".").map(Number);
  const [leastMajor, leastMinor] = least.split(".").map(Number);
  const isNew = major === leastMajor ? minor >= leastMinor : major > leastMajor;
  return !isNew; // also of a version that is none
}
