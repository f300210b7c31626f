// Our encoder-decoder bundles in transformers.js: the same greedy tokens as our runtime, or an error.
//
// Usage, with node 20 or newer:
//     npm install --prefix /tmp/js @huggingface/transformers
//     python export/seq2seq_bundles.py /tmp/bundles
//     NODE_PATH=/tmp/js/node_modules node export/transformers_js_check.mjs /tmp/bundles

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";

// Modules ignore NODE_PATH, `require` does not.
const { AutoModelForSeq2SeqLM, Tensor, env } = createRequire(import.meta.url)(
  "@huggingface/transformers",
);

const folder = path.resolve(process.argv[2]);
env.allowRemoteModels = false;
env.localModelPath = folder;
console.log(`transformers.js ${env.version}, node ${process.version}`);

const expected = JSON.parse(fs.readFileSync(path.join(folder, "expected.json"), "utf8"));
let wrong = 0;
for (const [name, runs] of Object.entries(expected)) {
  const options = { subfolder: "", dtype: "fp32", local_files_only: true };
  const model = await AutoModelForSeq2SeqLM.from_pretrained(name, options);
  const end = model.generation_config.eos_token_id;
  let equal = 0;
  for (const run of runs) {
    const made = await tokens(model, run);
    equal += JSON.stringify(cut(made, end)) === JSON.stringify(cut(run.tokens, end));
  }
  const sources = runs.reduce((sum, run) => sum + run.tokens.length, 0);
  console.log(`${name}: ${equal} of ${runs.length} runs (${sources} sources) give the same tokens`);
  wrong += runs.length - equal;
}
process.exit(wrong ? 1 : 0);

/** The new tokens of each source, as arrays of numbers. */
async function tokens(model, run) {
  const made = await model.generate({
    input_ids: integers(run.input_ids),
    attention_mask: integers(run.attention_mask),
    do_sample: false,
    num_beams: 1,
    ...run.settings,
  });
  // The first is the token that decoding starts with.
  return made.tolist().map((row) => row.slice(1).map(Number));
}

/** Rows up to their end-of-sequence token; what fills a row behind it does not count. */
function cut(rows, end) {
  return rows.map((row) => (row.includes(end) ? row.slice(0, row.indexOf(end) + 1) : row));
}

function integers(rows) {
  return new Tensor("int64", BigInt64Array.from(rows.flat(), BigInt), [rows.length, rows[0].length]);
}
