/** The result: a picture and its tokens side by side, linked by their grid; one token is shown with its near tokens. */

import { Panel } from "./panel.js";
import { counted, element, listFacts, Readout, similarityText, stepText, Strip } from "./readout.js";

const NEAR = 6; // near tokens that are shown
const WIDE = 1.9; // pictures of this aspect, and above, lie above their tokens

const WALKS = {
  ArrowLeft: (place) => ({ ...place, column: place.column - 1 }),
  ArrowRight: (place) => ({ ...place, column: place.column + 1 }),
  ArrowUp: (place) => ({ ...place, row: place.row - 1 }),
  ArrowDown: (place) => ({ ...place, row: place.row + 1 }),
  Home: (place) => ({ ...place, column: 0 }),
  End: (place) => ({ ...place, column: Infinity }),
  PageUp: (place) => ({ ...place, step: place.step - 1 }),
  PageDown: (place) => ({ ...place, step: place.step + 1 }),
};

export class View {
  constructor() {
    this.picture = new Panel(element("picture"));
    this.squares = new Panel(element("tokens"));
    this.readout = new Readout(NEAR, (token) => this.hold(token));
    this.strip = new Strip((step) => this.turn(step));
    for (const panel of [this.picture, this.squares]) this.follow(panel);
    element("tokens").addEventListener("keydown", (event) => this.walk(event));
    element("number").addEventListener("input", () => this.goTo(element("number").valueAsNumber));
    element("colouring").addEventListener("change", () => this.restyle());
  }

  /** Show tokens and the frames of the file, `name`, that they were computed from, and facts about the result. */
  show(tokens, frames, name, facts) {
    this.frames?.close();
    Object.assign(this, { tokens, frames, name, held: null, pointed: null });
    element("result").hidden = false;
    element("result").classList.toggle("wide", tokens.columns / tokens.rows >= WIDE);
    element("tokens").setAttribute("aria-label", `Tokens, ${tokens.rows} rows of ${tokens.columns}`);
    element("picture").setAttribute("aria-label", name);
    element("number").max = tokens.count - 1;
    listFacts(facts);
    this.picture.show(null, tokens, true); // until the first frame is there
    this.strip.show(tokens, frames, (step) => canvasOf(tokens.componentImage(step)));
    this.showStep(0);
  }

  /** The token that is shown: the one under the pointer, else the one that is held, else null. */
  get shown() {
    return this.pointed ?? this.held;
  }

  /** Hold a token, as a click does, and go to its step. */
  hold(token) {
    const { step } = this.tokens.place(token);
    Object.assign(this, { held: token, pointed: null });
    if (step === this.step) this.refresh();
    else this.showStep(step);
    this.readout.announce(this.tokens, token, this.near);
  }

  /** Go to a temporal step, with the token that is held. */
  turn(step) {
    if (this.held === null) this.showStep(step);
    else this.hold(this.tokens.at({ ...this.tokens.place(this.held), step }));
  }

  async showStep(step) {
    const { tokens, frames } = this;
    this.step = step;
    this.strip.mark(step);
    this.refresh();
    const frame = await frames.frame(step);
    if (this.tokens !== tokens || this.step !== step) return; // overtaken
    element("picture").hidden = !frame;
    element("picture-caption").textContent = this.caption();
    this.picture.show(frame, tokens, true);
    this.refresh();
  }

  caption() {
    const { tokens, step, name } = this;
    const size = `${counted(tokens.pixelColumns)} × ${counted(tokens.pixelRows)} pixels`;
    const parts = [name, size, tokens.steps > 1 ? stepText(tokens, step) : ""].filter(Boolean);
    return `${parts.join(", ")}${this.frames.note && `. ${this.frames.note}`}`;
  }

  /** Show the token that is to be shown in every place. */
  refresh() {
    const { tokens, shown } = this;
    this.similarities = shown === null ? null : tokens.similarities(shown);
    this.near = shown === null ? [] : tokens.nearest(shown, this.similarities, NEAR);
    this.colour();
    const places = this.near.map((each) => tokens.place(each.token));
    for (const panel of [this.picture, this.squares]) panel.mark(shown === null ? null : tokens.place(shown), places);
    if (shown === null) this.readout.clear();
    else this.readout.show(tokens, shown, this.near, this.picture.source ? this.picture : this.squares);
  }

  /** Colour the squares by components, or by their similarity to the token that is shown. */
  colour() {
    const { tokens, similarities } = this;
    if (similarities && element("similarity").checked) {
      const least = similarityText(similarities.reduce((a, b) => Math.min(a, b), 1));
      this.squares.show(canvasOf(tokens.similarityImage(similarities)), tokens, false);
      element("tokens-caption").textContent = `Similarity to token ${this.shown}: dark is ${least}, bright is 1`;
    } else {
      this.squares.show(canvasOf(tokens.componentImage(this.step)), tokens, false);
      element("tokens-caption").textContent = "Red, green and blue are the tokens’ first three principal components";
    }
  }

  restyle() {
    for (const panel of [this.picture, this.squares]) panel.rule(element("grid").checked);
    this.refresh();
  }

  /** Show the token under a pointer that moves over a panel, and hold it on a click. */
  follow(panel) {
    const under = (event) => this.tokens.at({ step: this.step, ...panel.placeUnder(event) });
    const point = (token) => {
      if (token === this.pointed) return;
      this.pointed = token;
      this.waiting ??= requestAnimationFrame(() => {
        this.waiting = undefined;
        this.refresh();
      });
    };
    panel.canvas.addEventListener("pointermove", (event) => point(under(event)));
    panel.canvas.addEventListener("pointerleave", () => point(null));
    panel.canvas.addEventListener("click", (event) => this.hold(under(event)));
  }

  /** Walk from the token that is shown, by a key. */
  walk(event) {
    const to = WALKS[event.key];
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Escape") this.leave();
    if (!to || (event.key.startsWith("Page") && this.tokens.steps === 1)) return;
    event.preventDefault();
    const { step, shown, tokens } = this;
    this.hold(tokens.at(shown === null ? { step, row: 0, column: 0 } : to(tokens.place(shown))));
  }

  goTo(token) {
    if (Number.isInteger(token) && token >= 0 && token < this.tokens.count) this.hold(token);
  }

  /** Show no token. */
  leave() {
    Object.assign(this, { held: null, pointed: null });
    this.refresh();
  }
}

/** Return a canvas with an image. */
function canvasOf(image) {
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: image.width, height: image.height });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
