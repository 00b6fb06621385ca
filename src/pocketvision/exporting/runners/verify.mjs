// Replays a golden pack, stage by stage, in plain JavaScript: in a browser or under node, without other packages.
//
//   import { verify } from "./verify.mjs";
//   const verdict = await verify(manifest, readBytes, runModel);
//
// manifest:  manifest.json of the pack, parsed.
// readBytes: async (name) => Uint8Array, a file of the pack by its name in the manifest.
// runModel:  async (data, dims) => [TypedArray, ...], the model's outputs in the order of manifest.contract.outputs;
//            data is a Uint8Array or Float32Array of shape dims, as manifest.contract.input says. null: no model, the
//            stages up to its input are compared.
// fault:     one of FAULTS, a mistake to make on purpose; null for none.
// prepare:   what is tested: (pixels, contract, fault) => stages; this file's own `prepare` by default. An app gives
//            its own, which may leave stages out.
// decode:    async (bytes of a PNG) => {width, height, data: RGB}; this file's own `decodePng` by default.
//
// Under node: node verify.mjs [PACK] [--fault NAME] [--outputs FOLDER]; the model is run where onnxruntime-node or
// onnxruntime-web is installed and the file is ONNX, else FOLDER may hold NUMBER.outputs.bin. Exit code 0 or 1.

export const FAULTS = {
  bgr: "red and blue are exchanged (BGR instead of RGB)",
  "no-antialias": "the resize has no antialiasing",
  "crop-first": "the image is cropped before it is resized",
  mean: "the normalisation has other constants (mean, std or the scale of 1 / 255)",
  layout: "the layout is transposed (NHWC and NCHW exchanged)",
  labels: "labels are shifted by one",
};
export const STAGES = ["decoded", "resized", "cropped", "input", "normalised", "outputs", "decision"];

// ---- the preprocessing: images are {width, height, data}, data RGB, 3 bytes a pixel ----

export function prepare(image, contract, fault = null) {
  if (fault === "bgr") image = { ...image, data: image.data.map((_, i, all) => all[i - (i % 3) + 2 - (i % 3)]) };
  const stages = { decoded: image };
  const [resize, crop] = contract.preprocessing.steps;
  const cropping = crop.step === "crop";
  const short = Math.min(image.width, image.height);
  let [width, height] = [resize.width, resize.height];
  if (fault === "crop-first") {
    image = cropMiddle(image, short, short);
    [width, height] = cropping ? [crop.width, crop.height] : [width, height];
  } else if (cropping) {
    [width, height] = [image.width, image.height].map((side) => roundEven((resize.short_side * side) / short));
  }
  stages.resized = resizeImage(image, width, height, resize.filter, fault !== "no-antialias");
  if (cropping) stages.cropped = cropMiddle(stages.resized, crop.width, crop.height);
  return { ...stages, ...tensors(stages.cropped ?? stages.resized, contract, fault) };
}

// Separable, as Pillow and torch do it: weights of the filter, stretched where the image is reduced.
export function resizeImage(image, width, height, filter, antialias = true) {
  const { data } = image;
  if (image.width === width && image.height === height) return { width, height, data: data.slice() };
  const across = weightsOf(image.width, width, filter, antialias);
  const rows = new Float32Array(image.height * width * 3);
  for (let y = 0; y < image.height; y++) {
    for (let x = 0; x < width; x++) {
      const { start, weights } = across[x];
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * data[(y * image.width + start + k) * 3 + c];
        rows[(y * width + x) * 3 + c] = Math.min(255, Math.max(0, sum));
      }
    }
  }
  const down = weightsOf(image.height, height, filter, antialias);
  const result = new Uint8Array(height * width * 3);
  for (let y = 0; y < height; y++) {
    const { start, weights } = down[y];
    for (let i = 0; i < width * 3; i++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * rows[(start + k) * width * 3 + i];
      result[y * width * 3 + i] = Math.min(255, Math.max(0, Math.round(sum)));
    }
  }
  return { width, height, data: result };
}

function weightsOf(from, to, filter, antialias) {
  const scale = from / to;
  const stretch = antialias ? Math.max(scale, 1) : 1;
  const support = (filter === "bicubic" ? 2 : 1) * stretch;
  const kernel = filter === "bicubic" ? cubic : (x) => Math.max(0, 1 - Math.abs(x));
  return Array.from({ length: to }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(from, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let j = start; j < end; j++) weights.push(kernel((j + 0.5 - centre) / stretch));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { start, weights: weights.map((w) => w / sum) };
  });
}

function cubic(x) {
  const a = -0.5, t = Math.abs(x); // Keys' value, which Pillow and torch's antialiased resize have
  if (t < 1) return ((a + 2) * t - (a + 3)) * t * t + 1;
  return t < 2 ? (((t - 5) * t + 8) * t - 4) * a : 0;
}

function roundEven(x) {
  const whole = Math.floor(x);
  return x - whole === 0.5 ? whole + (whole % 2) : Math.round(x);
}

export function cropMiddle(image, width, height) {
  const top = Math.floor((image.height - height) / 2), left = Math.floor((image.width - width) / 2);
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * image.width + left) * 3;
    data.set(image.data.subarray(start, start + width * 3), y * width * 3);
  }
  return { width, height, data };
}

// `normalised`, and before it `input` where the model takes pixels, in the model's layout.
export function tensors(image, contract, fault = null) {
  let { mean, std, scale } = contract.preprocessing.steps.at(-1);
  if (fault === "mean") [mean, std] = mean[0] === 0.5 ? [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]] : [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]];
  const first = contract.input.layout.endsWith("CHW") !== (fault === "layout");
  const stages = {};
  if (contract.input.dtype === "uint8") stages.input = first ? channelsFirst(image.data) : image.data;
  const normalised = Float32Array.from(image.data, (v, i) => (v * scale - mean[i % 3]) / std[i % 3]);
  stages.normalised = first ? channelsFirst(normalised) : normalised;
  return stages;
}

function channelsFirst(data) {
  const result = new data.constructor(data.length), count = data.length / 3;
  for (let i = 0; i < data.length; i++) result[(i % 3) * count + Math.floor(i / 3)] = data[i];
  return result;
}

// ---- PNG: 8 bits, RGB, not interlaced, which is what a pack holds ----

export async function decodePng(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const parts = [];
  let width = 0, height = 0;
  for (let at = 8; at < bytes.length; ) {
    const length = view.getUint32(at), type = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    if (type === "IHDR") {
      [width, height] = [view.getUint32(at + 8), view.getUint32(at + 12)];
      if (bytes[at + 16] !== 8 || bytes[at + 17] !== 2 || bytes[at + 20] !== 0) throw new Error("PNG is not 8-bit RGB");
    }
    if (type === "IDAT") parts.push(bytes.subarray(at + 8, at + 8 + length));
    at += 12 + length;
  }
  const stream = new Blob(parts).stream().pipeThrough(new DecompressionStream("deflate"));
  const raw = new Uint8Array(await new Response(stream).arrayBuffer());
  const stride = width * 3, data = new Uint8Array(height * stride);
  for (let y = 0; y < height; y++) {
    const filter = raw[y * (stride + 1)], from = y * (stride + 1) + 1, to = y * stride;
    for (let i = 0; i < stride; i++) {
      const a = i >= 3 ? data[to + i - 3] : 0, b = y ? data[to + i - stride] : 0;
      const c = i >= 3 && y ? data[to + i - stride - 3] : 0;
      const [pa, pb, pc] = [Math.abs(b - c), Math.abs(a - c), Math.abs(a + b - 2 * c)];
      const paeth = pa <= pb && pa <= pc ? a : pb <= pc ? b : c;
      data[to + i] = raw[from + i] + [0, a, b, (a + b) >> 1, paeth][filter];
    }
  }
  return { width, height, data };
}

// ---- what outputs mean ----

const TYPES = { float32: Float32Array, uint8: Uint8Array, int64: BigInt64Array };

// The arrays that lie one after the other in the bytes of an .outputs.bin file.
export function outputsFrom(bytes, described) {
  const shapes = described.map((d) => d.shape.map((side, i) => (d.layout[i] === "N" ? 1 : side)));
  const widths = shapes.map((shape, i) =>
    shape.reduce((product, side) => product * (side ?? 1), TYPES[described[i].dtype].BYTES_PER_ELEMENT));
  const free = shapes.map((shape) => shape.includes(null));
  const each = widths.reduce((sum, w, i) => sum + (free[i] ? w : 0), 0);
  const fixed = widths.reduce((sum, w, i) => sum + (free[i] ? 0 : w), 0);
  const count = each ? Math.floor((bytes.length - fixed) / each) : 0;
  let at = 0;
  const arrays = widths.map((width, i) => {
    const length = width * (free[i] ? count : 1);
    const part = bytes.slice(at, at + length);
    at += length;
    return new TYPES[described[i].dtype](part.buffer, 0, part.length / TYPES[described[i].dtype].BYTES_PER_ELEMENT);
  });
  if (at !== bytes.length) throw new Error(`${bytes.length} bytes of outputs, where ${at} are expected`);
  return arrays;
}

export function decide(outputs, manifest, image, fault = null) {
  let { form, labels, size } = manifest;
  if (fault === "labels") labels = [labels.at(-1), ...labels.slice(0, -1)];
  if (form === "raw") return null; // an app decodes these itself
  if (form === "scores") {
    const best = outputs[0].indexOf(outputs[0].reduce((a, b) => Math.max(a, b)));
    return { label: labels[best], score: outputs[0][best] };
  }
  if (form === "classes" || form === "logits") {
    const counts = new Array(labels.length).fill(0), pixels = size * size;
    const { layout } = manifest.contract.outputs[0]; // of logits NCHW, or NHWC
    for (let i = 0; i < pixels; i++) {
      counts[form === "classes" ? outputs[0][i] : bestOf(outputs[0], i, pixels, layout === "NHWC")]++;
    }
    return { shares: Object.fromEntries(counts.map((n, i) => [labels[i], n / pixels]).filter(([, share]) => share)) };
  }
  const x = image.width / size, y = image.height / size;
  const boxes = found(outputs, form, labels.length, manifest.selection);
  return { boxes: boxes.map(({ label, score, box }) => ({ label: labels[label], score, box: box.map((v, i) => v * [x, y][i % 2]) })) };
}

function bestOf(logits, pixel, pixels, last) {
  const classes = logits.length / pixels;
  const logit = (c) => logits[last ? pixel * classes + c : c * pixels + pixel];
  let best = 0;
  for (let c = 1; c < classes; c++) if (logit(c) > logit(best)) best = c;
  return best;
}

function found(outputs, form, classes, selection) {
  const boxAt = (i) => Array.from(outputs[0].subarray(4 * i, 4 * i + 4));
  if (form === "nms") {
    const all = Array.from(outputs[1], (score, i) => ({ score, label: Number(outputs[2][i]), box: boxAt(i) }));
    return all.filter(({ score }) => score >= selection.min_score);
  }
  const kept = [];
  for (let label = 0; label < classes; label++) {
    const best = [];
    for (let i = 0; i * 4 < outputs[0].length; i++) {
      const score = outputs[1][i * classes + label];
      if (score >= selection.min_score) best.push({ score, label, box: boxAt(i) });
    }
    best.sort((a, b) => b.score - a.score);
    const chosen = [];
    for (const one of best.slice(0, selection.candidates)) {
      if (chosen.every((other) => iou(one.box, other.box) <= selection.iou)) chosen.push(one);
    }
    kept.push(...chosen);
  }
  return kept.sort((a, b) => b.score - a.score).slice(0, selection.most);
}

function iou(a, b) {
  const side = (i) => Math.max(0, Math.min(a[i + 2], b[i + 2]) - Math.max(a[i], b[i]));
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  const both = side(0) * side(1);
  return both / Math.max(area(a) + area(b) - both, 1e-9);
}

// ---- the comparison: how far off in multiples of what is allowed (1 or less passes), and in words ----

function difference(stage, expected, actual, manifest, image) {
  if (stage === "decision") return decisionOff(expected, actual, manifest, image);
  if (stage === "outputs") return outputsOff(expected, actual, manifest, image);
  if (expected.data && (expected.width !== actual.width || expected.height !== actual.height)) {
    return [Infinity, `${actual.height} x ${actual.width} pixels instead of ${expected.height} x ${expected.width}`];
  }
  const [one, other] = [expected.data ?? expected, actual.data ?? actual];
  if (one.length !== other.length) return [Infinity, `${other.length} numbers instead of ${one.length}`];
  const { std, scale } = manifest.contract.preprocessing.steps.at(-1);
  const first = manifest.contract.input.layout.endsWith("CHW"), each = one.length / 3;
  const off = new Float32Array(one.length);
  let sum = 0;
  for (let i = 0; i < one.length; i++) {
    const unit = stage === "normalised" ? std[first ? Math.floor(i / each) : i % 3] / scale : 1;
    off[i] = Math.abs(one[i] - other[i]) * unit;
    sum += off[i];
  }
  if (stage === "decoded") return sum ? [Infinity, "pixels differ"] : [0, "identical"];
  if (!Number.isFinite(sum)) return [Infinity, "there are NaN or infinite values"];
  const allowed = manifest.tolerances[stage];
  const mean = sum / one.length, most = off.sort()[Math.floor(0.99 * (one.length - 1))];
  const limits = `(${allowed.mean} and ${allowed.p99} are allowed)`;
  const words = `${mean.toFixed(2)} grey levels off in the mean, 99% of the values within ${most.toFixed(0)} ${limits}`;
  return [Math.max(mean / allowed.mean, most / allowed.p99), words];
}

function outputsOff(expected, actual, manifest, image) {
  const { form, selection, labels } = manifest;
  if (form === "nms") {
    const all = { ...selection, min_score: -Infinity };
    return boxesOff(found(expected, form, labels.length, all), found(actual, form, labels.length, all), manifest, image);
  }
  let worst = 0;
  const words = manifest.contract.outputs.map(({ name }, place) => {
    const [one, other, limit] = [expected[place], actual[place], manifest.tolerances.outputs[name]];
    if (one.length !== other.length) worst = Infinity;
    let most = 0, differing = 0;
    for (let i = 0; i < one.length; i++) {
      const off = Math.abs(one[i] - other[i]);
      if (!(off <= most)) most = off; // NaN too
      differing += off !== 0;
    }
    const off = form === "classes" ? differing / one.length : most;
    worst = Math.max(worst, Number.isFinite(off) ? off / limit : Infinity);
    return `${name} off by ${off.toPrecision(2)} (${limit.toPrecision(2)} allowed)`;
  });
  return [worst, words.join(", ")];
}

function decisionOff(expected, actual, manifest, image) {
  if (expected.boxes) return boxesOff(expected.boxes, actual.boxes ?? [], manifest, image);
  if (expected.shares) {
    const names = new Set([...Object.keys(expected.shares), ...Object.keys(actual.shares ?? {})]);
    const off = Math.max(...[...names].map((n) => Math.abs((expected.shares[n] ?? 0) - (actual.shares?.[n] ?? 0))));
    return [off / manifest.tolerances.decision.share, `a share is ${(100 * off).toFixed(2)}% off`];
  }
  if (actual.label === expected.label) return [0, "the same label"];
  return [Infinity, `'${actual.label}' instead of '${expected.label}'`];
}

function boxesOff(expected, actual, manifest, image) {
  const { score, iou: overlap } = manifest.tolerances.decision;
  const sure = manifest.selection.min_score + score, rest = [...actual];
  let missing = 0;
  for (const one of expected) {
    const near = rest.filter((other) => other.label === one.label && Math.abs(other.score - one.score) <= score);
    near.sort((a, b) => iou(one.box, b.box) - iou(one.box, a.box));
    if (near.length && iou(one.box, near[0].box) >= overlap) rest.splice(rest.indexOf(near[0]), 1);
    else if (one.score >= sure) missing++;
  }
  const more = rest.filter((other) => other.score >= sure).length;
  const wrong = Math.max(0, missing - image.unstable) + Math.max(0, more - image.unstable);
  if (!wrong) return [0, `${expected.length} boxes found again`];
  return [1 + wrong, `${missing} of ${expected.length} boxes have no partner, ${more} others are there`];
}

// ---- replaying ----

// {passed, first, guess, stages: [{stage, state, text, images}]}; state: "passed", "differs" or "not given".
export async function verify(manifest, readBytes, runModel, fault = null, prepared = prepare, decode = decodePng) {
  if (manifest.golden !== 1) throw new Error(`golden pack of version ${manifest.golden}, this program reads 1`);
  const seen = new Map(); // of the stages that the pack has
  const failed = []; // [number, stage, expected, actual]: what a guess looks at
  for (const [number, image] of manifest.images.entries()) {
    const bytes = await readBytes(image.file);
    const expected = await expectedStages(manifest, image, readBytes, await decodePng(bytes));
    const actual = await prepared(await decode(bytes), manifest.contract, fault);
    if (runModel) {
      const { size } = manifest, first = manifest.contract.input.layout.endsWith("CHW");
      const dims = first ? [1, 3, size, size] : [1, size, size, 3];
      actual.outputs = await runModel(actual.input ?? actual.normalised, dims, number);
      actual.decision = decide(actual.outputs, manifest, image, fault);
    }
    let differs = false;
    for (const stage of STAGES.filter((stage) => expected[stage])) {
      if (!seen.has(stage)) seen.set(stage, []);
      if (!actual[stage]) continue;
      const [excess, text] = difference(stage, expected[stage], actual[stage], manifest, image);
      seen.get(stage).push({ number, excess, text });
      if (!(excess <= 1) && !differs) {
        differs = true;
        failed.push({ image, stage, expected, actual: actual[stage] });
      }
    }
  }
  const stages = [...seen].map(([stage, found]) => checkOf(stage, found));
  const first = stages.find(({ state }) => state === "differs")?.stage ?? null;
  const guess = first ? guessOf(first, failed.filter(({ stage }) => stage === first).slice(0, 3), manifest) : "";
  return { passed: first === null && stages.some(({ state }) => state === "passed"), first, guess, stages };
}

async function expectedStages(manifest, image, readBytes, decoded) {
  const stages = { decoded };
  for (const stage of ["resized", "cropped"]) if (image[stage]) stages[stage] = await decodePng(await readBytes(image[stage].file));
  Object.assign(stages, tensors(stages.cropped ?? stages.resized, manifest.contract));
  stages.normalised = new Float32Array((await readBytes(image.normalised.file)).slice().buffer);
  stages.outputs = outputsFrom(await readBytes(image.outputs.file), manifest.contract.outputs);
  return { ...stages, decision: image.decision };
}

function checkOf(stage, found) {
  if (!found.length) return { stage, state: "not given", text: "", images: [] };
  const bad = found.filter(({ excess }) => !(excess <= 1));
  const worst = found.reduce((a, b) => (b.excess > a.excess ? b : a));
  if (!bad.length) return { stage, state: "passed", text: `${found.length} images; worst: ${worst.text}`, images: [] };
  const text = `${bad.length} of ${found.length} images; worst is ${worst.number}: ${worst.text}`;
  return { stage, state: "differs", text, images: bad.map(({ number }) => number) };
}

// The mistake with which this program gets what was given on every one of the images; or "".
function guessOf(stage, failed, manifest) {
  const made = {
    labels: ({ expected }) => stage === "decision" && [-1, 1].map((by) => relabelled(expected.decision, manifest.labels, by)),
  };
  for (const fault of ["bgr", "no-antialias", "crop-first", "mean", "layout"]) {
    made[fault] = ({ expected }) => [prepare(expected.decoded, manifest.contract, fault)[stage]];
  }
  const fits = (fault) => failed.every((one) =>
    (made[fault](one) || []).some((variant) => variant && difference(stage, variant, one.actual, manifest, one.image)[0] <= 1));
  const likely = Object.keys(made).find(fits);
  return likely ? FAULTS[likely] : "";
}

function relabelled(decision, labels, by) {
  const moved = (name) => labels[(labels.indexOf(name) + by + labels.length) % labels.length];
  if (decision.label) return { ...decision, label: moved(decision.label) };
  if (decision.shares) return { shares: Object.fromEntries(Object.entries(decision.shares).map(([n, s]) => [moved(n), s])) };
  return { boxes: decision.boxes.map((box) => ({ ...box, label: moved(box.label) })) };
}

export function toText(verdict) {
  const lines = verdict.stages.map(({ stage, state, text }) => `${stage.padEnd(11)} ${state.padEnd(10)} ${text}`.trimEnd());
  if (!verdict.first) return [...lines, verdict.passed ? "every stage that was given passed" : "no stage was given"].join("\n");
  const likely = verdict.guess ? `; it looks as if ${verdict.guess}` : "";
  return [...lines, `stage ${verdict.first} differs${likely}`].join("\n");
}

// ---- under node ----

async function main(given) {
  const [{ readFile }, path, url] = await Promise.all([import("node:fs/promises"), import("node:path"), import("node:url")]);
  const option = (name) => (given.includes(name) ? given.splice(given.indexOf(name), 2)[1] : null);
  const fault = option("--fault"), outputs = option("--outputs");
  if (fault && !FAULTS[fault]) throw new Error(`--fault ${fault} is unknown; valid: ${Object.keys(FAULTS).join(", ")}`);
  const pack = given[0] ?? path.resolve(path.dirname(url.fileURLToPath(import.meta.url)), "..");
  const readBytes = async (name) => new Uint8Array(await readFile(path.join(pack, name)));
  const manifest = JSON.parse(await readFile(path.join(pack, "manifest.json"), "utf8"));
  let runModel = null;
  if (outputs) {
    const file = (number) => path.join(outputs, `${number}.outputs.bin`);
    runModel = async (_, __, number) => outputsFrom(new Uint8Array(await readFile(file(number))), manifest.contract.outputs);
  } else if (manifest.artifact.format === "onnx") {
    const ort = await import("onnxruntime-node").catch(() => import("onnxruntime-web")).catch(() => null);
    if (ort) runModel = await onnxModel(ort, await readFile(path.join(pack, "..", manifest.artifact.file)), manifest);
  }
  const verdict = await verify(manifest, readBytes, runModel, fault);
  console.log(toText(verdict) + (runModel ? "" : "\n(no runtime for the model here: give its outputs with --outputs)"));
  return verdict.passed ? 0 : 1;
}

// runModel for an ONNX file, with the module of onnxruntime-web or onnxruntime-node.
export async function onnxModel(ort, bytes, manifest) {
  const session = await ort.InferenceSession.create(bytes);
  const { name, dtype } = manifest.contract.input;
  return async (data, dims) => {
    const results = await session.run({ [name]: new ort.Tensor(dtype, data, dims) });
    return manifest.contract.outputs.map((output) => results[output.name].data);
  };
}

if (typeof process !== "undefined" && process.argv?.[1] && import.meta.url.endsWith(process.argv[1].split(/[\\/]/).pop())) {
  main(process.argv.slice(2)).then(
    (code) => { process.exitCode = code; },
    (error) => { console.error(`error: ${error.message}`); process.exitCode = 1; },
  );
}
