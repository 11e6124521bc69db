/** The words and numbers about a token, its near tokens, and the whole result. */

export const element = (id) => document.getElementById(id);
export const counted = new Intl.NumberFormat("en").format;

export const similarityText = (similarity) => similarity.toFixed(3).replace("-", "−");

/** Return {button, part} of a clone of a template whose item holds a button; part(selector) is in the button. */
function cloned(name, list) {
  const item = element(name).content.cloneNode(true).firstElementChild;
  list.append(item);
  const button = item.querySelector("button");
  return { item, button, part: (selector) => button.querySelector(selector) };
}

/** The token that is shown, and the list of its near tokens, which are buttons. */
export class Readout {
  constructor(near, choose) {
    this.items = Array.from({ length: near }, () => cloned("neighbour", element("nearest")));
    this.items.forEach((each) => each.button.addEventListener("click", () => choose(each.token)));
  }

  /** Show a token, with near tokens as {token, similarity}; `source` is the panel that their pixels come from. */
  show(tokens, token, near, source) {
    const place = tokens.place(token);
    if (element("number").valueAsNumber !== token) element("number").value = token;
    element("place").textContent = placeText(tokens, place);
    source.copyCell(place, element("patch"));
    element("patch").setAttribute("aria-label", `Patch of token ${token}`);
    this.items.forEach((item, index) => {
      item.item.hidden = index >= near.length;
      if (index < near.length) this.fill(item, near[index], tokens, source);
    });
  }

  fill(item, { token, similarity }, tokens, source) {
    const place = tokens.place(token);
    item.token = token;
    item.part(".number").textContent = token;
    item.part(".similarity").textContent = similarityText(similarity);
    item.part(".bar").style.setProperty("--share", Math.max(0, similarity));
    source.copyCell(place, item.part("canvas"));
    const words = `Token ${token}, ${placeText(tokens, place)}, similarity ${similarityText(similarity)}`;
    item.button.setAttribute("aria-label", words);
  }

  /** Show that no token is chosen. */
  clear() {
    element("number").value = "";
    element("place").textContent = "Point at a token.";
    element("patch").width = element("patch").height = 0;
    element("patch").setAttribute("aria-label", "No token");
    for (const { item } of this.items) item.hidden = true;
  }

  /** Tell a screen reader about a token that was chosen, not only pointed at. */
  announce(tokens, token, near) {
    const [first] = near;
    const nearest = first ? `Nearest: token ${first.token}, similarity ${similarityText(first.similarity)}.` : "";
    element("spoken").textContent = `Token ${token}, ${placeText(tokens, tokens.place(token))}. ${nearest}`;
  }
}

/** The strip of temporal steps, which are buttons; empty for a still. */
export class Strip {
  constructor(choose) {
    this.choose = choose;
    this.steps = [];
  }

  /** Show the steps of tokens, their squares first, then their frames as they are decoded. */
  async show(tokens, frames, squares) {
    const list = element("steps");
    list.replaceChildren();
    list.hidden = tokens.steps === 1;
    this.steps = list.hidden ? [] : Array.from({ length: tokens.steps }, () => cloned("step", list));
    this.steps.forEach(({ button, part }, step) => {
      button.addEventListener("click", () => this.choose(step));
      part("span").textContent = stepText(tokens, step);
      paintThumbnail(part("canvas"), squares(step), tokens);
    });
    for (const [step, { item, part }] of this.steps.entries()) {
      if (!item.isConnected) return; // another result is shown
      const frame = await frames.frame(step);
      if (frame) paintThumbnail(part("canvas"), frame, tokens);
    }
  }

  /** Mark the step that is shown. */
  mark(step) {
    this.steps.forEach(({ button }, index) => button.setAttribute("aria-pressed", String(index === step)));
    this.steps[step]?.item.scrollIntoView({ block: "nearest", inline: "nearest" });
  }
}

function paintThumbnail(canvas, source, { rows, columns }) {
  canvas.height = 2 * 64; // twice the height in page.css, for fine screens
  canvas.width = Math.round(canvas.height * Math.min(2.5, Math.max(0.5, columns / rows)));
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = source.width > canvas.width;
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
}

/** Return a step with its time: "step 3, 1.50 s". */
export function stepText(tokens, step) {
  const seconds = tokens.seconds[step];
  return `step ${step}${seconds === undefined ? "" : `, ${seconds.toFixed(2)} s`}`;
}

function placeText(tokens, { step, row, column }) {
  return `${tokens.steps > 1 ? `step ${step}, ` : ""}row ${row}, column ${column}`;
}

/** List facts, pairs of a name and a text. */
export function listFacts(facts) {
  const nodes = facts.flatMap(([name, text]) => {
    const [term, description] = ["dt", "dd"].map((tag) => document.createElement(tag));
    [term.textContent, description.textContent] = [name, text];
    return [term, description];
  });
  element("facts").replaceChildren(...nodes);
}
