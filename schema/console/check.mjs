/** Builds into a temporary folder and compares every file with ../static; exits 1 and names what differs. */

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const root = import.meta.dirname;
const fresh = mkdtempSync(join(tmpdir(), "console-"));

function hashes(folder) {
  return new Map(
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .map((path) => [path.slice(folder.length + 1), createHash("sha256").update(readFileSync(path)).digest("hex")]),
  );
}

try {
  const run = (...args) => execFileSync(process.execPath, args, { cwd: root, stdio: ["ignore", "ignore", "inherit"] });
  run("node_modules/vite/bin/vite.js", "build", "--outDir", fresh, "--emptyOutDir");
  run("notices.mjs", fresh);
  const built = hashes(fresh);
  const committed = hashes(join(root, "..", "static"));
  const differing = [...new Set([...built.keys(), ...committed.keys()])]
    .filter((name) => built.get(name) !== committed.get(name))
    .sort();
  for (const name of differing) console.error(`differs: ${name}`);
  console.log(differing.length ? "schema/static is not what the sources build" : `${built.size} files as committed`);
  process.exitCode = differing.length ? 1 : 0;
} finally {
  rmSync(fresh, { recursive: true });
}
