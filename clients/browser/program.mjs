/** Program: what the command lines of this client share. */
import { realpathSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ClientError, expect, messageOf } from "./public/errors.mjs";

/**
 * Run a module's main function where it is the program: its number is the exit code, an error one
 * line and code 2. `--help` prints the usage.
 * @param {string} module  its URL
 * @param {string} usage
 * @param {import("node:util").ParseArgsConfig["options"]} options
 * @param {(values: any, positionals: string[]) => Promise<number | void>} main
 */
export async function program(module, usage, options, main) {
  if (!process.argv[1] || realpathSync(process.argv[1]) !== fileURLToPath(module)) return;
  try {
    const help = /** @type {const} */ ({ help: { type: "boolean", short: "h" } });
    const parsed = parseArgs({ options: { ...options, ...help }, allowPositionals: true });
    const values = /** @type {any} */ (parsed.values);
    if (values.help) console.log(usage);
    else process.exitCode = (await main(values, parsed.positionals)) ?? 0;
  } catch (error) {
    console.error(messageOf(error));
    process.exit(2);
  }
}

/**
 * Return the number that a text spells.
 * @param {string} option
 * @param {string} text
 * @param {number} most
 */
export function wholeNumber(option, text, most) {
  const number = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  expect(option, text, number <= most, `an integer, 0 to ${most}`);
  return number;
}

/** Throw the usage as one line. @param {string} usage @returns {never} */
export function misused(usage) {
  throw new ClientError(usage.split("\n")[0]);
}
