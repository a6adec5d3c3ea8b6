// Makes ../assets/editor.js of main.js and what it imports, with the licences of
// all that is in it.
import { build } from "esbuild";
import { existsSync, readFileSync, writeFileSync } from "node:fs";

const made = await build({
  entryPoints: ["main.js"], bundle: true, minify: true, format: "iife", target: "es2022",
  charset: "utf8", legalComments: "eof", metafile: true, write: false,
});
const packages = new Set(Object.keys(made.metafile.inputs).map((f) => f.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1]).filter(Boolean));
const licences = new Map();
for (const name of [...packages].sort()) {
  const file = `node_modules/${name}/LICENSE`;
  if (!existsSync(file)) throw new Error(`${name} has no LICENSE`);
  const text = readFileSync(file, "utf8").trim();
  licences.set(text, [...(licences.get(text) ?? []), name]);
}
const notice = [...licences].map(([text, names]) => `${names.join(", ")}:\n\n${text}`).join("\n\n");
writeFileSync("../assets/editor.js", `/*! Made by router/web/editor of:\n\n${notice}\n*/\n${made.outputFiles[0].text}`);
