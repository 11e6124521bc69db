/** The tokens of one picture or film: their places, their colours, and how similar they are. */

const DTYPES = { F32: "float32", F16: "float16", BF16: "bfloat16" };
const DIM = [22, 20, 44]; // the colour of the least similar token
const BRIGHT = [255, 214, 110]; // the colour of the token itself

/**
 * Tokens in temporal steps of rows x columns, as `Embeddings.save` writes them.
 *
 * Token n of a step is in row floor(n / columns) and column n % columns; the tokens of the steps follow one another.
 */
export class Tokens {
  /**
   * @param {{metadata: object, tensors: Map}} file what `parse` of safetensors.js returns, of one item
   * @param {number} patch the side of a patch in pixels
   */
  constructor({ metadata, tensors }, patch) {
    const { shape, data, dtype } = tensors.get("embeddings");
    const [steps, height, width] = tensors.get("grid_thw").data; // in patches
    const merge = Number(metadata.merge_size);
    [this.count, this.width] = shape;
    [this.steps, this.rows, this.columns] = [steps, height / merge, width / merge];
    if (this.steps * this.perStep !== this.count) throw new Error("the answer holds more than one item");
    this.values = data;
    this.dtype = DTYPES[dtype];
    this.rgb = tensors.get("colors").data;
    [this.pixelRows, this.pixelColumns] = tensors.get("sizes").data;
    const [contentRows, contentColumns] = tensors.get("content").data; // the rest of the grid is black
    this.filled = { down: contentRows / (height * patch), across: contentColumns / (width * patch) };
    this.frames = tensors.get("frame_indices")?.data ?? [];
    this.seconds = tensors.get("timestamps")?.data ?? [];
    this.norms = norms(data, this.count, this.width);
  }

  /** The number of tokens in a temporal step. */
  get perStep() {
    return this.rows * this.columns;
  }

  /** Return {step, row, column} of a token. */
  place(token) {
    const within = token % this.perStep;
    const row = Math.floor(within / this.columns);
    return { step: Math.floor(token / this.perStep), row, column: within % this.columns };
  }

  /** Return the token at a place; a row or column outside of the grid gives the nearest inside. */
  at({ step, row, column }) {
    const inside = (value, end) => Math.min(Math.max(value, 0), end - 1);
    const place = inside(row, this.rows) * this.columns + inside(column, this.columns);
    return inside(step, this.steps) * this.perStep + place;
  }

  /** Return the cosine of a token with each token of its step, in their order; 0 beside a token of zeros. */
  similarities(token) {
    const { values, width, norms, perStep } = this;
    const first = this.place(token).step * perStep;
    const own = values.subarray(token * width, (token + 1) * width);
    return Float32Array.from({ length: perStep }, (_, place) => {
      const start = (first + place) * width;
      let sum = 0;
      for (let i = 0; i < width; i++) sum += own[i] * values[start + i];
      const scale = norms[token] * norms[first + place];
      return scale ? sum / scale : 0;
    });
  }

  /** Return the `count` tokens nearest to a token in its step: {token, similarity}, the nearest first. */
  nearest(token, similarities, count) {
    const first = this.place(token).step * this.perStep;
    return Array.from(similarities, (similarity, place) => ({ token: first + place, similarity }))
      .filter((each) => each.token !== token)
      .sort((a, b) => b.similarity - a.similarity)
      .slice(0, count);
  }

  /** Return an image of a step, one pixel for each token, in the colours of the service. */
  componentImage(step) {
    const first = 3 * step * this.perStep;
    return this.image((place) => this.rgb.subarray(first + 3 * place, first + 3 * place + 3));
  }

  /** Return an image of similarities, one pixel for each token: the brighter, the more similar. */
  similarityImage(similarities) {
    const least = similarities.reduce((a, b) => Math.min(a, b), 1);
    return this.image((place) => {
      const share = (similarities[place] - least) / (1 - least || 1);
      return DIM.map((dim, channel) => dim + share * (BRIGHT[channel] - dim));
    });
  }

  /** Return an image of rows x columns pixels, whose colours the function gives by place. */
  image(colour) {
    const image = new ImageData(this.columns, this.rows);
    for (let place = 0; place < this.perStep; place++) image.data.set([...colour(place), 255], 4 * place);
    return image;
  }
}

/** Return the Euclidean norm of each row. */
function norms(values, count, width) {
  return Float64Array.from({ length: count }, (_, row) => {
    let sum = 0;
    for (let i = row * width; i < (row + 1) * width; i++) sum += values[i] ** 2;
    return Math.sqrt(sum);
  });
}
