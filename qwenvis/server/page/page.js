/** The page of a qwenvis service: a file goes to the service, and its tokens come back and are shown. */

import { onFiles } from "./choose.js";
import { open } from "./frames.js";
import { counted, element } from "./readout.js";
import { parse } from "./safetensors.js";
import * as service from "./service.js";
import { Tokens } from "./tokens.js";
import { View } from "./view.js";

const LIMITS = [256, 1024, 4096]; // tokens of a photo, to choose from

const view = new View();
const session = { model: null, file: null, name: "", secret: "", running: null, saved: "" };

/** Show what the service says about its model. */
async function introduce() {
  session.model = await service.model(session.secret);
  const { source, family, dtype, isa } = session.model;
  element("model").textContent = [source, family, `${dtype} on ${isa}`].join(" · ");
  offerLimits();
}

async function greet() {
  try {
    await introduce();
  } catch (error) {
    fail(error, greet);
  }
}

function offerLimits() {
  const { patch_size: patch, merge_size: merge } = session.model;
  const options = LIMITS.map((tokens) => {
    const pixels = tokens * (patch * merge) ** 2;
    return new Option(`${counted(pixels)}, up to ${counted(tokens)} tokens`, pixels);
  });
  element("limit").replaceChildren(element("limit").options[0], ...options);
  element("limit").closest("label").hidden = false;
}

/** Encode the file that was chosen, and show its tokens. */
async function encode() {
  const { file, name, secret } = session;
  session.running?.abort();
  const { signal } = (session.running = new AbortController());
  wait(`Encoding ${name} …`);
  try {
    if (!session.model) await introduce();
    await check(file);
    const answer = await service.encode(file, { maxPixels: element("limit").value, secret, signal });
    const tokens = new Tokens(parse(answer.buffer), session.model.patch_size);
    const frames = await open(file, tokens);
    if (signal.aborted) return frames.close();
    settle(`${counted(tokens.count)} tokens of ${name}, in ${answer.seconds.toFixed(2)} s`);
    offerFile(answer.buffer, file);
    view.show(tokens, frames, nameOf(file), facts(tokens, answer.seconds));
  } catch (error) {
    if (!signal.aborted) fail(error, encode);
  }
}

/** Raise an error in words if the file cannot be sent: a folder, one that has gone, one that is too large. */
async function check(file) {
  await file.slice(0, 1).arrayBuffer().catch(() => {
    throw new Error(`${nameOf(file)} cannot be read: is it a folder, or was it moved?`);
  });
  const most = session.model.limits.max_body;
  if (file.size > most) {
    throw new Error(`${nameOf(file)} has ${counted(file.size)} bytes; the service takes at most ${counted(most)}`);
  }
}

function facts(tokens, seconds) {
  const { source, dtype, isa } = session.model;
  const steps = tokens.steps > 1 ? `${tokens.steps} steps of ` : "";
  return [
    ["Tokens", counted(tokens.count)],
    ["Grid", `${steps}${tokens.rows} rows × ${tokens.columns} columns`],
    ["A token", `${counted(tokens.width)} numbers, ${tokens.dtype}`],
    ["Time", `${seconds.toFixed(2)} s, ${counted(Math.round(tokens.count / seconds))} tokens/s`],
    ["Model", source],
    ["Weights", `${dtype} on ${isa}`],
  ];
}

/** Offer the answer of the service as a file. */
function offerFile(buffer, file) {
  URL.revokeObjectURL(session.saved);
  session.saved = URL.createObjectURL(new Blob([buffer], { type: "application/octet-stream" }));
  element("save").href = session.saved;
  element("save").download = `${nameOf(file).replace(/\.\w+$/, "")}.safetensors`;
}

function nameOf(file) {
  return file.name || "the picture";
}

function wait(message) {
  settle(message);
  element("progress").hidden = false;
}

/** Show that nothing is running, and a message. */
function settle(message = "") {
  element("progress").hidden = element("again").hidden = element("access").hidden = true;
  element("error").textContent = "";
  element("status").textContent = message;
}

/** Show an error; offer to repeat what may succeed later, and ask for a token where one is missing. */
function fail(error, again) {
  settle();
  element("error").textContent = error.message;
  session.repeat = again;
  element("again").hidden = !error.passing;
  element("access").hidden = error.status !== 401;
  if (error.status === 401) element("secret").focus();
}

function repeat() {
  settle();
  session.repeat();
}

function take(files) {
  session.file = files[0];
  session.name = nameOf(files[0]) + (files.length > 1 ? `, the first of ${files.length} files` : "");
  encode();
}

onFiles(element("file"), { take, refuse: (message) => fail(new Error(message)) });
element("limit").addEventListener("change", () => session.file && encode());
element("again").addEventListener("click", repeat);
element("cancel").addEventListener("click", () => {
  session.running.abort();
  settle("Cancelled.");
});
element("access").addEventListener("submit", (event) => {
  event.preventDefault();
  session.secret = element("secret").value;
  repeat();
});
greet();
