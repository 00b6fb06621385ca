// The network of this folder: a picture in, what it sees out. No page is needed:
//   import { load } from "./vision.js"; const network = await load(); const seen = await network.look(pixels);

import * as ort from "./ort.js";
import { prepare } from "./preprocess.js";

const HERE = new URL("./", import.meta.url).href;
ort.env.wasm.wasmPaths = { wasm: `${HERE}ort-wasm-simd-threaded.wasm` };
if (!globalThis.crossOriginIsolated) ort.env.wasm.numThreads = 1; // browsers share memory on isolated pages only

/** The network and its contract (model.onnx.json). */
export async function load() {
  const contract = await (await fetched("model.onnx.json")).json();
  const model = new Uint8Array(await (await fetched("model.onnx")).arrayBuffer());
  const session = await ort.InferenceSession.create(model, { executionProviders: ["wasm"], graphOptimizationLevel: "all" });
  const { height, width } = contract.preprocessing.steps.findLast((step) => step.height);
  const labels = contract.labels.length ? contract.labels : null;
  const network = {
    contract,
    name: (index) => labels?.[index] ?? `class ${index}`,
    /** RGB bytes of the network's input, as `prepare` makes them -> its outputs by name. */
    run: (pixels) => session.run({ [contract.input.name]: new ort.Tensor("uint8", pixels, [1, height, width, 3]) }),
    /** RGBA pixels {data, width, height}, as of a canvas -> what is seen, and the milliseconds of both parts. */
    async look(picture) {
      const start = performance.now();
      const { pixels, region } = prepare(picture, contract.preprocessing.steps);
      const prepared = performance.now();
      const outputs = await network.run(pixels);
      const done = performance.now();
      const seen = READERS[contract.form](outputs, region, { height, width });
      return { ...seen, ms: { prepare: prepared - start, network: done - prepared } };
    },
  };
  await network.look({ data: new Uint8Array(4 * 64 * 64), width: 64, height: 64 }); // the first call is slow
  return network;
}

/** A file or response of a picture as RGBA pixels: upright, its colours as they are stored, on white. */
export async function pixelsOf(blob) {
  const bitmap = await createImageBitmap(blob, { imageOrientation: "from-image", colorSpaceConversion: "none" });
  try {
    return pixelsFrom(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

const canvas = document.createElement("canvas");

/** The same of anything that a canvas can draw, such as a video's frame. */
export function pixelsFrom(drawable, width, height) {
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, width, height);
  context.drawImage(drawable, 0, 0, width, height);
  return context.getImageData(0, 0, width, height);
}

async function fetched(name) {
  const answer = await fetch(HERE + name);
  if (!answer.ok) throw new Error(`${name} cannot be fetched (${answer.status})`);
  return answer;
}

const READERS = {
  scores({ scores }) {
    const order = [...scores.data.keys()].sort((a, b) => scores.data[b] - scores.data[a]);
    return { classes: order.map((index) => ({ index, score: scores.data[index] })) };
  },
  nms({ boxes, scores, labels }, region, { height, width }) {
    const [across, down] = [region.width / width, region.height / height];
    const found = Array.from(scores.data, (score, row) => {
      const [x1, y1, x2, y2] = boxes.data.subarray(4 * row, 4 * row + 4);
      const box = [region.left + x1 * across, region.top + y1 * down, region.left + x2 * across, region.top + y2 * down];
      return { index: Number(labels.data[row]), score, box };
    });
    return { boxes: found };
  },
  classes({ classes }, region, { height, width }) {
    return { mask: { data: classes.data, height, width, region } };
  },
};
