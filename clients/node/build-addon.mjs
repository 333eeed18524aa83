// Builds the addon with the node-gyp that npm brings. Without a compiler it says so: the client
// then runs portable.
import { spawnSync } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";

const compiler = process.env.CXX ?? "c++";
if (spawnSync(compiler, ["--version"]).error) {
  console.error(
    `gptoss-node: found no C++ compiler (${compiler}): the addon is not built, and only portable ` +
      "kernels run",
  );
  process.exit(0);
}
// Most installations of Node bring its headers; only without them does node-gyp fetch them from
// nodejs.org.
const prefix = dirname(dirname(realpathSync(process.execPath)));
const headers = existsSync(join(prefix, "include/node/node_api.h")) ? [`--nodedir=${prefix}`] : [];
const gyp = process.env.npm_config_node_gyp; // set by npm in its scripts
const [command, first] = gyp ? [process.execPath, [gyp]] : ["node-gyp", []];
const built = spawnSync(command, [...first, "configure", "build", "--loglevel=warn", ...headers], {
  stdio: "inherit",
});
if (built.error)
  console.error(
    `gptoss-node: ${command}: ${built.error.message}; run this with npm run build:addon`,
  );
process.exit(built.status ?? 2);
