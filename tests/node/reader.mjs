// A second reader of TradeML's revisions, by docs/contract alone: hashes, signature, graphs and decisions, without any Python.
//
//   node reader.mjs STORE KEYS.json [--decisions FILE] [--no-graphs]
//
// STORE holds model_compat.json and revisions/; KEYS.json is {"pinned": ["ed25519:<64 hex>", ...]}. Prints one JSON object; what must
// not be used ends with exit 1 and a sentence. --no-graphs leaves onnxruntime-web out: then decisions start from the probabilities given.

import { createHash, createPublicKey, verify } from "node:crypto";
import { lstatSync, readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";

const DOMAIN = Buffer.from("trademl-manifest-v1\n");
const SPKI = Buffer.from("302a300506032b6570032100", "hex"); // before the 32 bytes of an Ed25519 key
const OWN = ["manifest.json", "manifest.sig", "model_compat.json"];
const MAX_BYTES = 256 * 1024;
const TIE_R = 1e-9;

const sha256 = (bytes) => createHash("sha256").update(bytes).digest("hex");

function refuse(sentence) {
  throw new Error(sentence);
}

function regular(path, limit) {
  const about = lstatSync(path);
  if (!about.isFile() || about.size > limit) refuse(`${path}: not a regular file of at most ${limit} bytes`);
  return readFileSync(path);
}

// ---------------------------------------------------------------- a revision

export function readRevision(store, pinned) {
  const pointer = JSON.parse(regular(join(store, "model_compat.json"), MAX_BYTES));
  if (!/^[0-9a-f]{16}$/.test(pointer.revision)) refuse("the pointer names no revision");
  const folder = join(store, "revisions", pointer.revision);
  const bytes = regular(join(folder, "manifest.json"), MAX_BYTES);
  if (sha256(bytes) !== pointer.manifest_sha256 || sha256(bytes).slice(0, 16) !== pointer.revision)
    refuse("the manifest is not the one that the pointer names");
  checkSignature(bytes, join(folder, "manifest.sig"), pinned);
  const manifest = JSON.parse(bytes); // only now: signed bytes, never written anew
  if (manifest.schema !== 3) refuse(`manifest schema ${manifest.schema}, this reader knows 3`);
  checkFiles(folder, manifest.files);
  return { folder, manifest, name: pointer.revision };
}

function checkSignature(manifest, path, pinned) {
  const { key, signature } = JSON.parse(regular(path, 1024));
  const owner = pinned.map((text) => Buffer.from(text.replace("ed25519:", ""), "hex")).find((raw) => sha256(raw).slice(0, 16) === key);
  if (!owner) refuse(`signed by key ${key}, which is not pinned here`);
  const publicKey = createPublicKey({ key: Buffer.concat([SPKI, owner]), format: "der", type: "spki" });
  if (!verify(null, Buffer.concat([DOMAIN, manifest]), publicKey, Buffer.from(signature, "hex")))
    refuse("the signature is forged or altered");
}

function checkFiles(folder, files) {
  const found = [];
  for (const entry of readdirSync(folder, { withFileTypes: true }))
    if (entry.isDirectory()) found.push(...readdirSync(join(folder, entry.name)).map((inner) => `${entry.name}/${inner}`));
    else found.push(entry.name);
  const listed = [...files.map((file) => file.name), ...OWN].sort();
  if (found.sort().join() !== listed.join()) refuse(`the folder holds ${found}, the manifest lists ${listed}`);
  for (const file of files) {
    if (!/^([a-z0-9][a-z0-9_.-]{0,62}\/)?[a-z0-9][a-z0-9_.-]{0,62}$/.test(file.name)) refuse(`file name ${file.name}`);
    const bytes = regular(join(folder, file.name), file.bytes);
    if (bytes.length !== file.bytes || sha256(bytes) !== file.sha256) refuse(`${file.name} is not what the manifest says`);
  }
}

// ---------------------------------------------------------------- arrays: an uncompressed .npz, little-endian

export function readNpz(bytes) {
  const arrays = {};
  const end = bytes.lastIndexOf(Buffer.from("PK\x05\x06", "latin1"));
  let at = bytes.readUInt32LE(end + 16);
  for (let left = bytes.readUInt16LE(end + 10); left > 0; left--) {
    const [size, nameLength, extra, comment] = [bytes.readUInt32LE(at + 24), ...[28, 30, 32].map((k) => bytes.readUInt16LE(at + k))];
    const header = bytes.readUInt32LE(at + 42);
    const name = bytes.toString("utf8", at + 46, at + 46 + nameLength).replace(/\.npy$/, "");
    const begin = header + 30 + bytes.readUInt16LE(header + 26) + bytes.readUInt16LE(header + 28);
    arrays[name] = readNpy(bytes.subarray(begin, begin + size));
    at += 46 + nameLength + extra + comment;
  }
  return arrays;
}

function readNpy(bytes) {
  const length = bytes.readUInt16LE(8);
  const header = bytes.toString("latin1", 10, 10 + length);
  const shape = header.match(/'shape': \(([^)]*)\)/)[1].split(",").filter((part) => part.trim()).map(Number);
  const body = Uint8Array.from(bytes.subarray(10 + length)).buffer;
  const kinds = { "<f8": Float64Array, "<f4": Float32Array, "<i8": BigInt64Array };
  return { shape, data: Array.from(new kinds[header.match(/'descr': '([^']*)'/)[1]](body), Number) };
}

// ---------------------------------------------------------------- graphs

async function openGraphs({ folder, manifest }) {
  const ort = await import("onnxruntime-web");
  ort.env.wasm.numThreads = 1;
  const graphs = {};
  for (const model of manifest.models) {
    const session = await ort.InferenceSession.create(new Uint8Array(readFileSync(join(folder, model.file))));
    graphs[model.name] = async (rows) => {
      const made = model.input.dtype === "float64" ? Float64Array : Float32Array;
      const input = new ort.Tensor(model.input.dtype, made.from(rows.flat()), [rows.length, model.features.length]);
      return session.run({ [model.input.name]: input });
    };
  }
  return graphs;
}

const widest = (got, wanted) => Math.max(...wanted.map((value, k) => Math.abs(value - Number(got[k]))));

async function replayGolden({ folder, manifest }, graphs) {
  const golden = readNpz(readFileSync(join(folder, manifest.golden.file)));
  const worst = {};
  for (const model of manifest.models) {
    const x = golden[`${model.name}_x`];
    const width = x.shape[1];
    const rows = Array.from({ length: x.shape[0] }, (_, n) => x.data.slice(n * width, (n + 1) * width));
    const answers = await graphs[model.name](rows);
    for (const { name, dtype } of model.outputs) {
      if (dtype === "int64") continue;
      worst[`${model.name} ${name}`] = widest(answers[name].data, golden[`${model.name}_${name}`].data);
    }
  }
  const off = Object.entries(worst).filter(([, by]) => !(by <= manifest.golden.tolerance));
  if (off.length) refuse(`golden rows are missed: ${off}`);
  return worst;
}

// ---------------------------------------------------------------- a decision, as docs/contract says it

export function decide(market, profile, baseRisk, given, answers) {
  const { label_spec: spec, costs, decision } = market;
  if (decision.rule !== "expected_r") refuse(`this reader knows the rule expected_r, not ${decision.rule}`);
  const stop = spec.sl_atr * given.atr;
  const roundTrip = costs.spread + 2 * costs.slippage + (2 * costs.commission) / costs.contract_size;
  const cost = stop > 0 ? roundTrip / stop : Infinity;
  const p = answers.probabilities;
  const worth = p && decision.worth_shipped.map((side) => side.reduce((sum, r, k) => sum + r * p[k], 0) - cost);
  let side = 0;
  if (worth && Number.isFinite(cost) && Math.max(...worth) > decision.margins[profile].margin_r && Math.abs(worth[0] - worth[1]) > TIE_R)
    side = worth[0] > worth[1] ? 1 : -1;
  const multiplier = answers.size_multiplier;
  const exit = answers.exit_probability;
  return {
    side,
    expected_r: worth,
    cost_r: cost,
    stop_distance: stop,
    target_distance: spec.tp_atr * given.atr,
    size_multiplier: multiplier,
    effective_risk: baseRisk * multiplier,
    exit_probability: exit,
    leave: given.trade_state ? exit !== null && exit >= decision.exit_probability : null,
  };
}

async function answersOf({ manifest }, graphs, profile, given) {
  const known = given.features.every((value) => value !== null);
  const answers = { probabilities: null, exit_probability: null };
  if (known) {
    const signal = await graphs.signal([given.features]);
    answers.probabilities = Array.from(signal.probabilities.data);
  }
  const { exits_on, min_bars_held } = manifest.market.decision;
  if (known && exits_on && given.trade_state && given.bars_held >= min_bars_held) {
    const position = await graphs.position([[...given.features, ...given.trade_state]]);
    answers.exit_probability = position.probabilities.data[1];
  }
  const published = manifest.market.profiles.some((entry) => entry.profile === profile && entry.published);
  answers.size_multiplier = published ? (await graphs[`risk_p${profile}`]([given.account_state])).value.data[0] : 1;
  return answers;
}

async function reproduce(revision, graphs, file) {
  const { profile, tolerance, cases } = JSON.parse(readFileSync(file));
  const registry = JSON.parse(readFileSync(join(revision.folder, "registry.json")));
  const names = revision.manifest.models.find((model) => model.role === "signal").features.map((feature) => feature.name);
  if (registry.features.map((feature) => feature.name).join() !== names.join()) refuse("registry.json is not in the order of the columns");
  const baseRisk = registry.profiles.find((one) => one.profile === profile).base_risk;
  let worst = 0;
  const sides = {};
  for (const given of cases) {
    const answers = graphs ? await answersOf(revision, graphs, profile, given) : given.expected;
    const made = decide(revision.manifest.market, profile, baseRisk, given, answers);
    for (const [name, wanted] of Object.entries({ ...given.expected })) {
      if (!(name in made)) continue;
      const numbers = [made[name], wanted].map((value) => (Array.isArray(value) ? value : [value]));
      if (wanted === null || typeof wanted === "boolean" || name === "side") {
        if (made[name] !== wanted) refuse(`${given.bar_utc} ${name}: ${made[name]}, golden ${wanted}`);
      } else {
        const off = widest(...numbers);
        if (!(off <= tolerance * Math.max(1, ...numbers[1].map(Math.abs)))) refuse(`${given.bar_utc} ${name}: off by ${off}`);
        worst = Math.max(worst, off);
      }
    }
    sides[made.side] = (sides[made.side] ?? 0) + 1;
  }
  return { cases: cases.length, sides, worst };
}

// ---------------------------------------------------------------- the command

const options = { decisions: { type: "string" }, "no-graphs": { type: "boolean", default: false } };
const { values, positionals } = parseArgs({ options, allowPositionals: true });
try {
  const revision = readRevision(positionals[0], JSON.parse(readFileSync(positionals[1])).pinned);
  const graphs = values["no-graphs"] ? null : await openGraphs(revision);
  const golden = graphs && (await replayGolden(revision, graphs));
  const decisions = values.decisions ? await reproduce(revision, graphs, values.decisions) : null;
  console.log(JSON.stringify({ revision: revision.name, files: revision.manifest.files.length, golden, decisions }));
} catch (error) {
  console.error(`refused: ${error.message}`);
  process.exitCode = 1;
}
