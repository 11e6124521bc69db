/** The pixels of a file, as this browser decodes them: once for a photo, at each temporal step for a film. */

const LONGEST = 2048; // pixels of a side that are kept: enough for a patch that is enlarged
const SHAPE = 1; // pixels by which a rounded side may differ

/**
 * Open the file that tokens were computed from; return {frame, close, note}.
 *
 * `await frame(step)` is a canvas of the pixels below the grid of the tokens, or null where this browser cannot show
 * what the service has read; `note` then says why. Frames of a film come one after the other, as they are called for.
 */
export async function open(file, tokens) {
  const address = URL.createObjectURL(file);
  const close = () => URL.revokeObjectURL(address);
  const missing = (note) => ({ frame: async () => null, close, note });
  try {
    const decode = tokens.seconds.length ? film : photo;
    const { width, height, frame } = await decode(address, tokens);
    const differences = [width - tokens.pixelColumns, height - tokens.pixelRows];
    if (differences.every((each) => Math.abs(each) <= SHAPE)) return { frame, close, note: "" };
    return missing(`This browser shows the file in another size, ${width} × ${height} pixels.`);
  } catch {
    return missing(`This browser cannot show ${file.type || "files of this type"}; the tokens are complete.`);
  }
}

async function photo(address, tokens) {
  const image = new Image();
  image.src = address;
  await image.decode();
  const copied = copy(image, tokens);
  return { width: image.naturalWidth, height: image.naturalHeight, frame: async () => copied };
}

async function film(address, tokens) {
  const video = document.createElement("video");
  Object.assign(video, { muted: true, playsInline: true, preload: "auto" });
  const loaded = event(video, "loadeddata");
  video.src = address;
  await loaded;
  const show = async (step) => {
    const found = event(video, "seeked");
    video.currentTime = tokens.seconds[step] + 0.001; // times are rounded: not the frame before
    await found;
    return copy(video, tokens);
  };
  let last = Promise.resolve(); // a film is at one place at a time
  const frame = (step) => {
    last = last.then(() => show(step)).catch(() => null);
    return last;
  };
  return { width: video.videoWidth, height: video.videoHeight, frame };
}

/** Wait for an event of an element. Raises an error if the element fails. */
function event(element, name) {
  return new Promise((resolve, reject) => {
    const once = { once: true };
    element.addEventListener(name, resolve, once);
    element.addEventListener("error", () => reject(new Error("not decoded")), once);
  });
}

/**
 * Return a canvas with the pixels of an element as they lie below the grid of the tokens: on white where the element is
 * transparent, and black beside the picture, as the tower gets them.
 */
function copy(element, { pixelColumns, pixelRows, filled }) {
  const [width, height] = [pixelColumns / filled.across, pixelRows / filled.down];
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const content = [0, 0, canvas.width * filled.across, canvas.height * filled.down];
  const context = canvas.getContext("2d");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = "white";
  context.fillRect(...content);
  context.imageSmoothingQuality = "high";
  context.drawImage(element, ...content);
  return canvas;
}
