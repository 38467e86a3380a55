// Where images come from: files, drops, the clipboard, the camera, examples.

const EXAMPLES = [
  ["page/examples/scene-1.webp", "Example 1"],
  ["page/examples/scene-2.webp", "Example 2"],
  ["page/examples/scene-3.webp", "Example 3"],
];

/** Connect all inputs; `add` is called with a list of files, `fail` with a message. */
export function connectInputs(add, fail) {
  const file = document.getElementById("file");
  const capture = document.getElementById("capture");
  for (const input of [file, capture]) {
    input.addEventListener("change", () => {
      if (input.files.length) add([...input.files]);
      input.value = ""; // the same file may be chosen again
    });
  }
  for (const button of document.querySelectorAll(".choose")) button.addEventListener("click", () => file.click());
  for (const button of document.querySelectorAll("button.camera")) {
    button.addEventListener("click", () => openCamera(add, capture, fail));
  }
  document.addEventListener("paste", (event) => {
    const files = imagesOf(event.clipboardData);
    if (files.length) {
      event.preventDefault();
      add(files);
    }
  });
  connectDrops(add, fail);
  addExamples(add, fail);
}

function connectDrops(add, fail) {
  const stage = document.getElementById("stage");
  const isOfFiles = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!isOfFiles(event)) return; // text that is dragged into the sentence
    event.preventDefault();
    stage.classList.add("is-target");
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) stage.classList.remove("is-target");
  });
  document.addEventListener("drop", (event) => {
    if (!isOfFiles(event)) return;
    event.preventDefault();
    stage.classList.remove("is-target");
    const files = imagesOf(event.dataTransfer);
    if (files.length) add(files);
    else fail("What was dropped is no image file. Drop a JPEG, PNG, WebP or AVIF file.");
  });
}

/** Return the images of a drop or of the clipboard. A file without a type may be an image: the service decides. */
function imagesOf(transfer) {
  return [...(transfer?.files ?? [])].filter((file) => !file.type || file.type.startsWith("image/"));
}

function addExamples(add, fail) {
  const list = document.getElementById("examples");
  for (const [path, name] of EXAMPLES) {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("aria-label", name);
    const image = document.createElement("img");
    image.src = path;
    image.alt = "";
    image.width = 72;
    image.height = 72;
    button.append(image);
    button.addEventListener("click", async () => {
      try {
        const response = await fetch(path);
        if (!response.ok) throw new Error(response.statusText);
        const blob = await response.blob();
        add([new File([blob], path.split("/").at(-1), { type: blob.type })]);
      } catch {
        fail("The example could not be loaded. Is the service still running?");
      }
    });
    list.append(button);
  }
}

/** Take a photo in a dialog; where a page may not use the camera, the system's own chooser does. */
async function openCamera(add, capture, fail) {
  const dialog = document.getElementById("camera");
  const video = document.getElementById("video");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    if (matchMedia("(pointer: coarse)").matches) capture.click();
    else fail("The camera cannot be used: the browser has none, or did not allow it.");
    return;
  }
  const close = () => dialog.close();
  const shoot = async () => {
    const canvas = document.createElement("canvas");
    canvas.width = video.videoWidth;
    canvas.height = video.videoHeight;
    canvas.getContext("2d").drawImage(video, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
    dialog.close();
    if (blob) add([new File([blob], "photo.jpg", { type: "image/jpeg" })]);
  };
  const controls = new AbortController();
  document.getElementById("shoot").disabled = true;
  video.addEventListener("loadeddata", () => (document.getElementById("shoot").disabled = false), { signal: controls.signal });
  document.getElementById("shoot").addEventListener("click", shoot, { signal: controls.signal });
  document.getElementById("close-camera").addEventListener("click", close, { signal: controls.signal });
  dialog.addEventListener(
    "close",
    () => {
      stream.getTracks().forEach((track) => track.stop());
      video.srcObject = null;
      controls.abort();
    },
    { once: true },
  );
  video.srcObject = stream;
  dialog.showModal();
}
