// The page: a dropped or chosen picture, one of this folder (?image=photo.jpg), or the camera.

import { load, pixelsFrom, pixelsOf } from "./vision.js";

const at = (id) => document.getElementById(id);
const [canvas, results, status, video] = [at("canvas"), at("results"), at("status"), at("video")];
const SHOWN = 5;
let network = null;
let last = null; // {pixels, seen} of the picture that is shown
let camera = null;

const VERBS = { classify: "Classifies", detect: "Finds objects in", segment: "Outlines what is in" };

start().catch(fail);

async function start() {
  network = await load();
  const { task, labels, precision, spec } = network.contract;
  const classes = labels.length ? `${labels.length} classes` : "classes without names";
  at("about").textContent = `${VERBS[task]} pictures: ${spec.backbone.name}, ${precision}, ${classes}.`;
  at("threshold").hidden = task !== "detect";
  at("choose").disabled = at("camera").disabled = false;
  status.textContent = "Drop a picture here, choose one, or use the camera.";
  const named = new URLSearchParams(location.search).get("image");
  if (named) await showFile(await (await fetch(named)).blob());
  document.documentElement.dataset.ready = "yes";
}

async function showFile(blob) {
  stopCamera();
  try {
    await show(await pixelsOf(blob));
  } catch (error) {
    fail(error.name === "InvalidStateError" ? new Error("This file is no picture that the browser can read.") : error);
  }
}

async function show(pixels) {
  last = { pixels, seen: await network.look(pixels) };
  draw();
}

function draw() {
  const { pixels, seen } = last;
  [canvas.width, canvas.height] = [pixels.width, pixels.height];
  const context = canvas.getContext("2d");
  context.putImageData(pixels, 0, 0);
  canvas.hidden = false;
  document.body.classList.add("shown");
  if (seen.classes) listClasses(seen.classes);
  if (seen.boxes) drawBoxes(context, seen.boxes.filter(({ score }) => score >= Number(at("least").value)));
  if (seen.mask) drawMask(context, seen.mask);
  const { prepare, network: ran } = seen.ms;
  status.classList.remove("wrong");
  status.textContent = `network ${ran.toFixed(1)} ms, preparing ${prepare.toFixed(1)} ms`;
}

function listClasses(classes) {
  list(classes.slice(0, SHOWN).map(({ index, score }) => ({ index, share: score, colour: "var(--accent)" })));
}

function drawBoxes(context, boxes) {
  const unit = Math.max(canvas.width, canvas.height) / 100;
  context.font = `600 ${2.6 * unit}px system-ui, sans-serif`;
  context.textBaseline = "top";
  for (const { index, score, box } of boxes.toReversed()) {
    const [x, y, right, bottom] = box;
    context.strokeStyle = context.fillStyle = colourOf(index);
    context.lineWidth = Math.max(1, 0.5 * unit);
    context.strokeRect(x, y, right - x, bottom - y);
    const text = `${network.name(index)} ${percent(score)}`;
    const [wide, high] = [context.measureText(text).width + unit, 3.4 * unit];
    const [left, top] = [Math.max(0, Math.min(x, canvas.width - wide)), y >= high ? y - high : Math.max(0, y)];
    context.fillRect(left, top, wide, high);
    context.fillStyle = "white";
    context.fillText(text, left + 0.5 * unit, top + 0.5 * unit);
  }
  list(boxes.map(({ index, score }) => ({ index, share: score, colour: colourOf(index) })), "Nothing found.");
}

function drawMask(context, { data, width, height, region }) {
  const picture = new ImageData(width, height);
  const counts = new Map();
  const clear = new Set(network.contract.labels.flatMap((label, index) => (label === "background" ? [index] : [])));
  data.forEach((index, place) => {
    counts.set(index, (counts.get(index) ?? 0) + 1);
    if (!clear.has(index)) picture.data.set([...rgbOf(index), 150], 4 * place);
  });
  const small = document.createElement("canvas");
  [small.width, small.height] = [width, height];
  small.getContext("2d").putImageData(picture, 0, 0);
  context.imageSmoothingEnabled = false;
  context.drawImage(small, region.left, region.top, region.width, region.height);
  const rows = [...counts].sort((a, b) => b[1] - a[1]);
  list(rows.map(([index, count]) => ({
    index,
    share: count / data.length,
    colour: clear.has(index) ? "var(--quiet)" : colourOf(index),
  })));
}

/** One row for each: a colour, a name, a bar, a percentage. */
function list(rows, none = "") {
  results.replaceChildren(
    ...rows.map(({ index, share, colour }) => {
      const row = document.createElement("li");
      const [name, bar, fill, number] = ["span", "span", "span", "span"].map((kind) => document.createElement(kind));
      [name.className, bar.className, number.className] = ["name", "bar", "number"];
      [name.textContent, number.textContent] = [network.name(index), percent(share)];
      [fill.style.width, fill.style.background] = [`${100 * share}%`, colour];
      bar.append(fill);
      row.append(name, bar, number);
      return row;
    }),
  );
  if (!rows.length) results.textContent = none;
}

const percent = (share) => `${(100 * share).toFixed(share < 0.1 ? 1 : 0)}%`;

/** Colours far apart: each class a golden angle further, in three lightnesses. */
function rgbOf(index) {
  const [hue, light] = [(index * 137.508 + 210) % 360, [0.42, 0.55, 0.34][index % 3]];
  const reach = 0.75 * Math.min(light, 1 - light);
  const channel = (n) => {
    const k = (n + hue / 30) % 12;
    return Math.round(255 * (light - reach * Math.max(-1, Math.min(k - 3, 9 - k, 1))));
  };
  return [channel(0), channel(8), channel(4)];
}

const colourOf = (index) => `rgb(${rgbOf(index).join(" ")})`;

function fail(error) {
  results.replaceChildren();
  status.classList.add("wrong");
  status.textContent = `It did not work: ${error.message}`;
  console.error(error);
}

async function startCamera() {
  const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  video.srcObject = stream;
  await video.play();
  const mine = (camera = { stream });
  at("camera").textContent = "Stop camera";
  while (camera === mine) {
    const frame = new Promise((resolve) => requestAnimationFrame(resolve));
    if (video.videoWidth) await show(pixelsFrom(video, video.videoWidth, video.videoHeight));
    await frame;
  }
}

function stopCamera() {
  camera?.stream.getTracks().forEach((track) => track.stop());
  camera = null;
  video.srcObject = null;
  at("camera").textContent = "Camera";
}

at("camera").addEventListener("click", () => {
  if (camera) return stopCamera();
  if (!navigator.mediaDevices) return fail(new Error("browsers give the camera to pages of https or localhost only"));
  startCamera().catch((error) => {
    stopCamera();
    fail(error);
  });
});
at("choose").addEventListener("click", () => at("file").click());
at("file").addEventListener("change", ({ target }) => {
  if (target.files.length) showFile(target.files[0]);
  target.value = "";
});
at("least").addEventListener("input", ({ target }) => {
  at("told").textContent = percent(Number(target.value));
  if (last && !camera) draw();
});
for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => {
    event.preventDefault();
    document.body.classList.add("over");
  });
}
addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("over");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file && network) showFile(file);
});
addEventListener("paste", (event) => {
  const [file] = event.clipboardData.files;
  if (file && network) showFile(file);
});
