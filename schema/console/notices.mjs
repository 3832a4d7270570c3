/**
 * Writes third-party-notices.txt: the licence texts of every production dependency, from the lock file's list.
 * Equal texts are printed once. Usage: node notices.mjs <folder of the build>
 */

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const FILES = /^(licen[cs]e|copying|notice|third-?party-?notices)([-.].*)?$/i;
const root = import.meta.dirname;
const { packages } = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8"));

const groups = new Map();
for (const [folder, { dev, version, license }] of Object.entries(packages)) {
  if (folder === "" || dev) continue;
  const home = join(root, folder);
  const name = folder.replace(/^.*node_modules\//, "");
  const texts = readdirSync(home)
    .filter((file) => FILES.test(file))
    .sort()
    .map((file) => readFileSync(join(home, file), "utf8").replace(/\r\n/g, "\n").trim());
  if (texts.length === 0) {
    const { author, repository } = JSON.parse(readFileSync(join(home, "package.json"), "utf8"));
    const owner = author?.name ?? author ?? repository?.url ?? repository ?? "its authors";
    texts.push(`The package carries no licence file. Its package.json declares: ${license} (${owner}).`);
  }
  const text = texts.join("\n\n");
  const entry = `${name} ${version} (${license})`;
  groups.set(text, [...(groups.get(text) ?? []), entry]);
}

const RULE = "=".repeat(80);
const sections = [...groups]
  .map(([text, entries]) => ({ text, entries: [...new Set(entries)].sort() }))
  .sort((a, b) => (a.entries[0] < b.entries[0] ? -1 : 1))
  .map(({ text, entries }) => `${RULE}\n${entries.join("\n")}\n${RULE}\n\n${text}\n`);

writeFileSync(
  join(process.argv[2], "assets", "third-party-notices.txt"),
  `The GraphiQL page of Switchyard contains software by others, under the licences below.\n` +
    `The icon font of the editor (Codicons, Microsoft) is licensed under CC BY 4.0.\n\n${sections.join("\n")}`,
);
