/** The ways to choose a file: a dialog, a drop anywhere on the page, and the clipboard. */

/**
 * Call `take(files)` with the files, at least one, that a person picks, drops or pastes, and `refuse(message)` if what
 * was dropped is no file.
 */
export function onFiles(input, { take, refuse }) {
  input.addEventListener("change", () => {
    const files = [...input.files];
    input.value = ""; // the same file may be picked again
    if (files.length) take(files);
  });
  document.addEventListener("paste", (event) => {
    const files = [...event.clipboardData.files];
    if (!files.length) return; // text in a field
    event.preventDefault();
    take(files);
  });
  onDrop((files) => (files.length ? take(files) : refuse("That was no file: drop a photo or a film.")));
}

function onDrop(take) {
  const over = (is) => document.body.classList.toggle("dropping", is);
  document.addEventListener("dragover", (event) => {
    event.preventDefault(); // a drop is welcome
    over(true);
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) over(false); // it has left the page
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    take([...event.dataTransfer.files]);
  });
}
