// Parses every Mermaid diagram of the Markdown files given, with the mermaid package: rc 1 if one does not parse.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { join, resolve } from "node:path";

const [folder, ...files] = process.argv.slice(2);
const require = createRequire(join(resolve(folder), "package.json"));
const { JSDOM } = require("jsdom");
const { window } = new JSDOM("");
globalThis.window = window; // mermaid's sanitizer asks for them
globalThis.document = window.document;
const mermaid = (await import(pathToFileURL(require.resolve("mermaid")))).default;

let found = 0, wrong = 0;
for (const file of files) {
  for (const [, diagram] of readFileSync(file, "utf8").matchAll(/^```mermaid\n(.*?)^```/gms)) {
    found += 1;
    try {
      await mermaid.parse(diagram);
    } catch (error) {
      wrong += 1;
      console.error(`${file}: ${error.message}\n${diagram}`);
    }
  }
}
console.log(`${found} diagrams, ${wrong} do not parse`);
process.exit(wrong || !found ? 1 : 0);
