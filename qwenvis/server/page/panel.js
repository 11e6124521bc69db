/** A canvas that shows pixels below the grid of the tokens, and marks some of the cells. */

const LINE = "rgb(255 255 255 / 0.3)"; // of the grid
const CLOSEST = 6; // the least distance of two lines, in CSS pixels
const STRIDES = [1, 2, 5, 10, 20, 50, 100, 200]; // tokens from one line to the next
const NUMBERED = 17; // the least side of a cell that holds the rank of a near token, in CSS pixels

export class Panel {
  /** @param {HTMLCanvasElement} canvas its size follows from CSS, which reads the property --aspect */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.ground = document.createElement("canvas"); // pixels and grid, without marks
    Object.assign(this, { source: null, rows: 1, columns: 1, smooth: true, ruled: true, chosen: null, near: [] });
    new ResizeObserver(() => this.paint()).observe(canvas);
  }

  /** Show a source, a canvas or null, stretched over rows x columns cells; smooth unless its pixels are tokens. */
  show(source, { rows, columns }, smooth) {
    Object.assign(this, { source, rows, columns, smooth });
    this.canvas.style.setProperty("--aspect", columns / rows);
    this.paint();
  }

  /** Draw the grid, or leave it out. */
  rule(ruled) {
    this.ruled = ruled;
    this.paint();
  }

  /** Mark one place {row, column}, or null, and its near places in their order. */
  mark(chosen, near) {
    Object.assign(this, { chosen, near });
    this.draw();
  }

  /** Return the place {row, column} under a pointer. */
  placeUnder(event) {
    const box = this.canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * this.rows);
    const column = Math.floor(((event.clientX - box.left) / box.width) * this.columns);
    return { row, column };
  }

  /** Copy the pixels of a cell onto the whole of a small square canvas. */
  copyCell({ row, column }, target) {
    const side = Math.round(target.clientWidth * devicePixelRatio) || 1;
    target.width = target.height = side;
    const context = target.getContext("2d");
    const [width, height] = [this.source.width / this.columns, this.source.height / this.rows];
    context.imageSmoothingEnabled = this.smooth;
    context.drawImage(this.source, column * width, row * height, width, height, 0, 0, side, side);
  }

  /** Paint the ground in the size that the canvas has on the screen, and draw. */
  paint() {
    const width = Math.round(this.canvas.clientWidth * devicePixelRatio);
    const height = Math.round(this.canvas.clientHeight * devicePixelRatio);
    if (!width || !height) return;
    for (const canvas of [this.canvas, this.ground]) Object.assign(canvas, { width, height });
    const context = this.ground.getContext("2d");
    context.imageSmoothingEnabled = this.smooth;
    context.imageSmoothingQuality = "high";
    if (this.source) context.drawImage(this.source, 0, 0, width, height);
    if (this.ruled) this.drawGrid(context);
    this.draw();
  }

  drawGrid(context) {
    const { width, height } = this.ground;
    const [side, rise] = [width / this.columns, height / this.rows];
    const stride = STRIDES.find((each) => each * side >= CLOSEST * devicePixelRatio) ?? this.columns;
    context.fillStyle = LINE;
    for (let k = stride; k < this.columns; k += stride) context.fillRect(Math.round(k * side), 0, 1, height);
    for (let k = stride; k < this.rows; k += stride) context.fillRect(0, Math.round(k * rise), width, 1);
  }

  draw() {
    const { context, canvas } = this;
    context.clearRect(0, 0, canvas.width, canvas.height);
    if (this.ground.width) context.drawImage(this.ground, 0, 0);
    this.near.toReversed().forEach((place) => this.outline(place, 1.25));
    this.near.forEach((place, index) => this.number(place, index + 1));
    if (this.chosen) this.outline(this.chosen, 2.5);
  }

  /** Outline a cell in white within black, which show on every colour. */
  outline(place, weight) {
    const { context } = this;
    const { x, y, side, rise } = this.box(place);
    for (const [colour, line] of [["black", weight + 1.75], ["white", weight]]) {
      context.strokeStyle = colour;
      context.lineWidth = line * devicePixelRatio;
      context.strokeRect(x, y, side, rise);
    }
  }

  /** Write the rank of a near token into its cell. */
  number(place, rank) {
    const { context } = this;
    const { x, y, side, rise } = this.box(place);
    if (Math.min(side, rise) < NUMBERED * devicePixelRatio) return;
    Object.assign(context, { textAlign: "center", textBaseline: "middle", lineJoin: "round" });
    context.font = `600 ${11 * devicePixelRatio}px system-ui, sans-serif`;
    context.strokeStyle = "black";
    context.lineWidth = 3 * devicePixelRatio;
    context.strokeText(rank, x + side / 2, y + rise / 2);
    context.fillStyle = "white";
    context.fillText(rank, x + side / 2, y + rise / 2);
  }

  box({ row, column }) {
    const [side, rise] = [this.canvas.width / this.columns, this.canvas.height / this.rows];
    return { x: column * side, y: row * rise, side, rise };
  }
}
