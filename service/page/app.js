// The page: images in a strip, the caption of the chosen one as it is written, and the map of the selected word.
//
// Everything is kept in memory and is gone when the page is closed.

import { explain, explanationOptions, models, streamCaption } from "./api.js";
import { connectDownloads, curlCommand } from "./downloads.js";
import { connectInputs } from "./inputs.js";
import { drawMap, drawScale } from "./maps.js";
import { addWord, captionElement, meaning, miniature, moveByKey, smallCopy } from "./words.js";

const MAX_ITEMS = 50; // images in the strip
const element = (id) => document.getElementById(id);
const items = []; // {file, url, options, state, response, sentence, error, words, image, grid}
let current = null;
let selected = null; // the word whose map is shown
let pictured = null; // the caption whose words have small maps
let isTouched = false; // whether the person has chosen a word: then arriving words do not change the map
let checkpoints = [];
let running = Promise.resolve(); // images are captioned one after the other

function start() {
  drawScale(element("scale"));
  connectInputs(addFiles, showProblem);
  connectDownloads(() => current, key, showProblem);
  element("captions").addEventListener("keydown", moveByKey);
  element("explain").addEventListener("submit", explainSentence);
  element("settings").addEventListener("submit", captionAgain);
  element("settings").elements.model.addEventListener("change", showLanguages);
  element("settings").elements.key.addEventListener("change", loadModels);
  for (const name of ["opacity", "box"]) element(name).addEventListener("input", draw);
  for (const input of document.querySelectorAll("[name=look]")) input.addEventListener("input", draw);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !element("camera").open) select(null);
  });
  element("photo").addEventListener("load", ({ target }) => {
    target.style.setProperty("--ratio", target.naturalWidth / target.naturalHeight);
    draw();
    pictured = null;
    if (current?.response) showMiniatures();
  });
  new ResizeObserver(draw).observe(element("photo"));
  loadModels();
}

/** Take images into the strip and caption them; the first one is shown. */
function addFiles(files) {
  showProblem("");
  const taken = files.slice(0, MAX_ITEMS - items.length);
  if (taken.length < files.length) showProblem(`Only ${MAX_ITEMS} images fit; reload the page to start again.`);
  const added = taken.map((file) => ({ file, url: URL.createObjectURL(file), state: "waiting" }));
  items.push(...added);
  if (!added.length) return;
  show(added[0]);
  for (const item of added) caption(item);
}

/** Caption an item when it is its turn. */
function caption(item) {
  Object.assign(item, { options: options(), state: "waiting", response: null, sentence: null, error: null, words: [] });
  running = running.then(async () => {
    item.state = "running";
    refresh(item);
    try {
      await streamCaption(item.file, item.options, key(), {
        start: (data) => Object.assign(item, { image: data.image, grid: data.grid }),
        word: (word) => {
          item.words.push(word);
          if (item === current) showArriving(word);
        },
        caption: (data) => finish(item, data),
      });
      if (!item.response) throw new Error("The service ended the response early; try again.");
    } catch (error) {
      item.state = "failed";
      item.error = error.code === "missing_key" || error.code === "wrong_key" ? keyMessage(error) : error.message;
    }
    refresh(item);
  });
}

function finish(item, response) {
  Object.assign(item, { state: "done", response, image: response.image, grid: response.grid });
}

/** Show an item that has changed, if it is the current one; and the strip. */
function refresh(item) {
  showStrip();
  if (item === current) show(item);
}

function show(item) {
  const isNew = item !== current;
  current = item;
  if (isNew || item.state !== "done") isTouched = false;
  if (isNew) {
    const photo = element("photo");
    photo.src = item.url;
    photo.hidden = false;
    element("start").hidden = true;
    element("stage").classList.remove("is-empty");
    element("gallery").hidden = false;
  }
  element("tools").hidden = false;
  element("explain").hidden = item.state !== "done";
  element("downloads").hidden = item.state !== "done";
  element("problem").textContent = item.error ?? "";
  element("hint").textContent = item.state === "done" ? "Point at a word, tap it, or use the arrow keys: the map shows where it came from. A bar is a word's probability; gray words do not depend on the image, dotted ones are uncertain."
    : item.state === "failed" ? "" : "Looking at the image …";
  showCaptions(item);
  showStrip();
}

function showCaptions(item) {
  element("captions").replaceChildren();
  element("minis").replaceChildren();
  pictured = null;
  element("photo").alt = item.response?.captions[0].text ?? item.file.name;
  if (!item.response) {
    select(null);
    item.words?.forEach((word) => showArriving(word));
    return;
  }
  const all = words(item.response);
  let first = 0;
  for (const [number, one] of item.response.captions.entries()) {
    const offset = first;
    const label = item.sentence !== null ? "Your sentence" : item.response.captions.length > 1 ? `Caption ${number + 1}` : "";
    element("captions").append(captionElement(one, label, (index) => touch(all[offset + index])));
    first += one.words.length;
  }
  element("curl").textContent = curlCommand(item, Boolean(key()));
  element("live").textContent = `Caption: ${item.response.captions.map((one) => one.text ?? "uncertain").join("; ")}`;
  select(isTouched && all.includes(selected) ? selected : best(item.response.captions[0].words));
}

/** Append a word that has just arrived, and show its map. */
function showArriving(word) {
  let block = element("captions").querySelector(".caption");
  if (!block) {
    block = captionElement({ text: "", words: [], confidence: null }, "", () => {});
    element("captions").append(block);
  }
  addWord(block.querySelector(".text"), word, word.index, () => touch(word), word.before);
  if (!isTouched) select(word);
}

/** Show a small map for every word of the caption that the selected word is in. */
function showMiniatures() {
  const { response, image, grid } = current;
  const caption = response.captions.find((one) => one.words.includes(selected)) ?? response.captions[0];
  if (caption === pictured) return;
  pictured = caption;
  const photo = element("photo");
  const copy = smallCopy(photo.complete && photo.naturalWidth ? photo : null, image);
  const shown = caption.words.filter((word) => word.map);
  element("minis").replaceChildren(...shown.map((word) => miniature(copy, word, image, grid, () => touch(word))));
}

function showStrip() {
  element("strip").replaceChildren(
    ...items.map((item, number) => {
      const entry = document.createElement("li");
      const button = document.createElement("button");
      button.type = "button";
      const text = item.response?.captions[0].text ?? { failed: "failed", running: "is being captioned" }[item.state] ?? "waits";
      button.setAttribute("aria-label", `Image ${number + 1}: ${text}`);
      if (item === current) button.setAttribute("aria-current", "true");
      button.classList.add(`is-${item.state}`);
      const image = document.createElement("img");
      image.src = item.url;
      image.alt = "";
      button.append(image);
      button.addEventListener("click", () => show(item));
      entry.append(button);
      return entry;
    }),
  );
}

/** Select a word because the person chose it. */
function touch(word) {
  isTouched = true;
  select(word);
}

/** Show a word's map and figures, or those of no word. */
function select(word) {
  selected = word;
  const shown = current?.response ? words(current.response) : current?.words ?? [];
  const at = shown.indexOf(word);
  document.querySelectorAll("#captions .word").forEach((button, index) => button.setAttribute("aria-pressed", String(index === at)));
  if (current?.response) showMiniatures();
  const small = pictured?.words.filter((one) => one.map).indexOf(word) ?? -1;
  document.querySelectorAll("#minis figure").forEach((figure, index) => figure.classList.toggle("is-selected", index === small));
  element("details").hidden = !word;
  element("stage-word").hidden = !word;
  if (word) {
    element("details-word").textContent = word.text;
    element("stage-word").textContent = word.text;
    element("probability").value = word.probability;
    element("probability-text").textContent = percent(word.probability);
    element("reliance").value = Math.max(0, word.image_reliance ?? 0);
    element("reliance-text").textContent = word.image_reliance === null ? "unknown" : `${word.image_reliance.toFixed(1)} nats`;
    element("confidence-row").hidden = word.confidence === null;
    element("confidence").value = word.confidence ?? 0;
    element("confidence-text").textContent = `${percent(word.confidence ?? 0)} that the image shows it`;
    element("meaning").textContent = meaning(word);
  }
  draw();
}

function draw() {
  const photo = element("photo");
  const canvas = element("overlay");
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [photo.clientWidth, photo.clientHeight];
  if (!current?.image || !width) {
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    return;
  }
  Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  const look = document.querySelector("[name=look]:checked").value;
  drawMap(canvas, selected, current.image, current.grid, { look, opacity: Number(element("opacity").value), box: element("box").checked });
}

/** Replace the captions of the current image by the maps of a sentence. */
async function explainSentence(event) {
  event.preventDefault();
  const item = current;
  const sentence = element("sentence").value.trim();
  if (!sentence) return;
  showProblem("");
  try {
    const response = await explain(item.file, explanationOptions(item.options, sentence), key());
    isTouched = false;
    item.sentence = sentence;
    finish(item, response);
    refresh(item);
  } catch (error) {
    showProblem(error.message);
  }
}

function captionAgain(event) {
  event.preventDefault();
  if (!current) return;
  isTouched = false;
  caption(current);
  show(current);
}

async function loadModels() {
  try {
    checkpoints = await models(key());
  } catch (error) {
    if (error.status === 401) showProblem(keyMessage(error));
    return;
  }
  const select = element("settings").elements.model;
  select.replaceChildren(...checkpoints.map((model) => new Option(model.name, model.name)));
  showLanguages();
}

function showLanguages() {
  const { model, language } = element("settings").elements;
  const languages = checkpoints.find((one) => one.name === model.value)?.languages ?? [];
  const names = new Intl.DisplayNames(["en"], { type: "language" });
  language.replaceChildren(...languages.map((tag) => new Option(`${names.of(tag)} (${tag})`, tag)));
}

/** Return the options of the settings that are set; the first checkpoint and its first language are the defaults. */
function options() {
  const values = Object.fromEntries(new FormData(element("settings")));
  delete values.key;
  if (checkpoints.length < 2) delete values.model;
  const languages = checkpoints.find((one) => one.name === (values.model ?? one.name))?.languages ?? [];
  if (values.language === languages[0]) delete values.language;
  if (values.strategy !== "sample") for (const name of ["temperature", "seed"]) delete values[name];
  const captions = Number(values.num_return_sequences) || 1;
  if (captions > 1 && ["", "beam"].includes(values.strategy) && captions > (Number(values.num_beams) || 3)) values.num_beams = captions;
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ""));
}

function key() {
  return element("settings").elements.key.value;
}

function keyMessage(error) {
  document.querySelector(".settings").open = true;
  return `${error.message}. Enter it under Settings.`;
}

function showProblem(text) {
  element("problem").textContent = text;
}

function words(response) {
  return response.captions.flatMap((one) => one.words);
}

/** Return the word that depends most on the image. */
function best(all) {
  return all.reduce((top, word) => ((word.image_reliance ?? 0) > (top?.image_reliance ?? -1) ? word : top), null);
}

function percent(share) {
  return `${share < 0.01 ? "< 1" : Math.round(100 * share)} %`;
}

start();
