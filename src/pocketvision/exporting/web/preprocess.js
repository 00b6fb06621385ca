// From the pixels of a picture to what the network sees, bit for bit as pocketvision.data.transforms.prepare does it
// (which is torch's antialiased resize of bytes: weights of 16 bits, columns first, each pass rounded to bytes).

const WIDEST = 4; // long side / short side, from where the part that the crop drops is not resized at all

/** A picture's RGBA bytes {data, width, height} -> RGB bytes of the network's input, and the part of the picture
 *  {left, top, width, height} that they show. `steps`: model.json's preprocessing.steps. */
export function prepare(picture, steps) {
  const { width, height } = picture;
  const [resize, crop] = steps;
  if (crop.step !== "crop") {
    const pixels = resized(picture, whole(picture), resize.width, resize.height, resize.filter);
    return { pixels, region: whole(picture) };
  }
  const short = Math.min(width, height);
  const far = [width, height].map((side) => Math.trunc(Math.max(0, side - WIDEST * short) / 2));
  const part = { left: far[0], top: far[1], width: width - 2 * far[0], height: height - 2 * far[1] };
  const [newWidth, newHeight] = [part.width, part.height].map((side) => roundHalfEven((resize.short_side * side) / short));
  const pixels = resized(picture, part, newWidth, newHeight, resize.filter);
  const left = Math.floor((newWidth - crop.width) / 2);
  const top = Math.floor((newHeight - crop.height) / 2);
  const cut = new Uint8Array(3 * crop.width * crop.height);
  for (let y = 0; y < crop.height; y++) {
    const start = 3 * ((top + y) * newWidth + left);
    cut.set(pixels.subarray(start, start + 3 * crop.width), 3 * y * crop.width);
  }
  const [across, down] = [part.width / newWidth, part.height / newHeight];
  const region = {
    left: part.left + left * across,
    top: part.top + top * down,
    width: crop.width * across,
    height: crop.height * down,
  };
  return { pixels: cut, region };
}

function whole({ width, height }) {
  return { left: 0, top: 0, width, height };
}

/** A part of an RGBA picture -> RGB bytes of `width` x `height` pixels. */
export function resized(picture, part, width, height, filter) {
  const columns = weightsOf(part.width, width, filter);
  const rows = weightsOf(part.height, height, filter);
  const between = new Uint8Array(3 * width * part.height);
  for (let y = 0; y < part.height; y++) {
    const line = 4 * ((part.top + y) * picture.width + part.left);
    along(picture.data, line, 4, between, 3 * y * width, 3, width, columns);
  }
  const result = new Uint8Array(3 * width * height);
  for (let x = 0; x < width; x++) {
    along(between, 3 * x, 3 * width, result, 3 * x, 3 * width, height, rows);
  }
  return result;
}

/** One line of pixels: `count` weighted means of three channels. */
function along(source, from, step, target, to, stride, count, { starts, sizes, values, most, bits }) {
  const half = 2 ** (bits - 1);
  for (let place = 0; place < count; place++) {
    let [red, green, blue] = [half, half, half];
    const size = sizes[place];
    let at = from + step * starts[place];
    for (let index = 0, weight = place * most; index < size; index++, weight++, at += step) {
      red += values[weight] * source[at];
      green += values[weight] * source[at + 1];
      blue += values[weight] * source[at + 2];
    }
    const out = to + stride * place;
    target[out] = byte(red >> bits);
    target[out + 1] = byte(green >> bits);
    target[out + 2] = byte(blue >> bits);
  }
}

function byte(value) {
  return value < 0 ? 0 : value > 255 ? 255 : value;
}

const FILTERS = {
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: {
    support: 2,
    at: (x) => {
      const [a, d] = [-0.5, Math.abs(x)];
      if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
      return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
    },
  },
};

/** For each of `to` places: which of `from` pixels count, and how much, in whole numbers of 1 / 2^bits. */
function weightsOf(from, to, filter) {
  const { support, at } = FILTERS[filter];
  const scale = from / to;
  const reach = scale >= 1 ? support * scale : support;
  const shrink = scale >= 1 ? 1 / scale : 1;
  const most = 2 * Math.ceil(reach) + 1;
  const exact = new Float64Array(to * most);
  const [starts, sizes] = [new Int32Array(to), new Int32Array(to)];
  let largest = 0;
  for (let place = 0; place < to; place++) {
    const centre = scale * (place + 0.5);
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const size = Math.min(most, Math.min(from, Math.trunc(centre + reach + 0.5)) - start);
    let total = 0;
    for (let index = 0; index < size; index++) {
      const weight = at((index + start - centre + 0.5) * shrink);
      exact[place * most + index] = weight;
      total += weight;
    }
    for (let index = 0; index < size; index++) {
      exact[place * most + index] /= total;
      largest = Math.max(largest, exact[place * most + index]);
    }
    [starts[place], sizes[place]] = [start, size];
  }
  let bits = 0;
  while (bits < 22 && Math.trunc(0.5 + largest * 2 ** (bits + 1)) < 2 ** 15) bits++;
  const values = Int32Array.from(exact, (weight) => Math.trunc(weight * 2 ** bits + (weight < 0 ? -0.5 : 0.5)));
  return { starts, sizes, values, most, bits };
}

/** Python's round(): halves go to the even neighbour. */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest < 0.5 || (rest === 0.5 && floor % 2 === 0) ? floor : floor + 1;
}
