// The page: images in a strip, the caption of the chosen one as it is written, and the map of the selected word.
//
// Everything is kept in memory and is gone when the page is closed.

import { explain, explanationOptions, streamCaption } from "./api.js";
import { connectDownloads, curlCommand } from "./downloads.js";
import { connectInputs } from "./inputs.js";
import { drawMap, drawScale } from "./maps.js";
import { key, loadModels, messageOf, options, showDefaults } from "./settings.js";
import { Strip } from "./strip.js";
import { addWord, captionElement, meaning, miniature, moveByKey, smallCopy } from "./words.js";

const MAX_ITEMS = 50; // images in the strip
const HINT =
  "Point at a word, tap it, or use the arrow keys: the map shows where it came from. " +
  "A bar is a word’s probability; gray words do not depend on the image, dotted ones are uncertain.";
const element = (id) => document.getElementById(id);
const items = []; // {file, url, run, state, options, sentence, response, words, image, grid, error}
const strip = new Strip(element("strip"), (item) => show(item));
let current = null; // the item that is shown
let selected = null; // the word whose map is shown
let shownCaption = null; // the caption whose words have small maps
let notice = ""; // a problem that is not one of an item
let isTouched = false; // whether the person has chosen a word: then arriving words do not change the map
let running = Promise.resolve(); // images are captioned one after the other

function start() {
  drawScale(element("scale"));
  connectInputs(addFiles, showProblem);
  connectDownloads(() => current, key, (error) => showProblem(messageOf(error)));
  element("captions").addEventListener("keydown", moveByKey);
  element("explain").addEventListener("submit", explainSentence);
  element("settings").addEventListener("submit", captionAgain);
  element("settings").elements.model.addEventListener("change", showDefaults);
  element("settings").elements.key.addEventListener("change", showModels);
  for (const name of ["opacity", "box"]) element(name).addEventListener("input", draw);
  for (const input of document.querySelectorAll("[name=look]")) input.addEventListener("input", draw);
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // its address would be another page's: the document has a base
    element("caption").focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !element("camera").open) select(null);
  });
  element("photo").addEventListener("load", ({ target }) => {
    target.style.setProperty("--ratio", target.naturalWidth / target.naturalHeight);
    shownCaption = null;
    select(selected);
  });
  new ResizeObserver(draw).observe(element("photo"));
  showModels();
}

/** Take images into the strip and caption them; the first one is shown. */
function addFiles(files) {
  const taken = files.slice(0, MAX_ITEMS - items.length);
  const added = taken.map((file) => ({ file, url: URL.createObjectURL(file), run: 0 }));
  items.push(...added);
  for (const item of added) caption(item);
  if (added.length) show(added[0]);
  showProblem(taken.length < files.length ? `Only ${MAX_ITEMS} images fit; reload the page to start again.` : "");
}

/** Caption an item when it is its turn. What an earlier run of it, or a pending explanation, returns is dropped. */
function caption(item) {
  const run = ++item.run;
  const isLatest = () => item.run === run;
  item.abort?.abort();
  item.abort = new AbortController();
  Object.assign(item, { options: options(), state: "waiting", sentence: null, response: null, error: null, words: [] });
  strip.update(item, current);
  const work = async () => {
    if (!isLatest()) return;
    item.state = "running";
    refresh(item);
    const on = {
      start: ({ image, grid }) => Object.assign(item, { image, grid }),
      word: (word) => {
        item.words.push(word);
        if (item === current) showArriving(word);
      },
      caption: (response) => Object.assign(item, { state: "done", response }),
    };
    try {
      await streamCaption(item.file, item.options, key(), on, item.abort.signal);
      if (!item.response) throw new Error("The service ended the response early; try again.");
    } catch (error) {
      if (isLatest()) Object.assign(item, { state: "failed", error: messageOf(error) });
    }
    if (isLatest()) refresh(item);
  };
  running = running.then(work).catch((error) => showProblem(error.message));
}

/** Show an item that has changed in the strip, and if it is the current one. */
function refresh(item) {
  if (item === current) show(item);
  else strip.update(item, current);
}

function show(item) {
  const isNew = item !== current;
  current = item;
  if (isNew || item.state !== "done") isTouched = false;
  if (isNew) {
    element("photo").src = item.url;
    element("photo").hidden = false;
    element("start").hidden = true;
    element("stage").classList.remove("is-empty");
    element("gallery").hidden = false;
    element("tools").hidden = false;
  }
  const isDone = item.state === "done";
  element("explain").hidden = !isDone;
  element("downloads").hidden = !isDone;
  element("hint").textContent = isDone ? HINT : item.state === "failed" ? "" : "Looking at the image …";
  if (isNew) notice = "";
  showProblems();
  showCaptions(item);
  strip.update(item, current);
}

function showCaptions(item) {
  const focused = wordButtons().indexOf(document.activeElement);
  element("captions").replaceChildren();
  element("minis").replaceChildren();
  shownCaption = null;
  element("photo").alt = item.response?.captions[0].text ?? item.file.name;
  if (!item.response) {
    select(null);
    item.words.forEach(showArriving);
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
  wordButtons()[focused]?.focus();
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
  if (caption === shownCaption) return;
  shownCaption = caption;
  const photo = element("photo");
  const copy = smallCopy(photo.complete && photo.naturalWidth ? photo : null, image);
  const mapped = caption.words.filter((word) => word.map);
  element("minis").replaceChildren(...mapped.map((word) => miniature(copy, word, image, grid, () => touch(word))));
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
  wordButtons().forEach((button, index) => button.setAttribute("aria-pressed", String(index === at)));
  if (current?.response) showMiniatures();
  const small = shownCaption?.words.filter((one) => one.map).indexOf(word) ?? -1;
  document.querySelectorAll("#minis figure").forEach((figure, index) => figure.classList.toggle("is-selected", index === small));
  element("details").hidden = !word;
  element("stage-word").hidden = !word;
  if (word) showFigures(word);
  draw();
}

function showFigures(word) {
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
  const run = ++item.run; // a later sentence or caption of this image makes this one obsolete
  item.error = null;
  showProblem("");
  try {
    const response = await explain(item.file, explanationOptions(item.options, sentence), key());
    if (item.run !== run) return;
    Object.assign(item, { sentence, response, image: response.image, grid: response.grid });
  } catch (error) {
    if (item.run !== run) return;
    item.error = messageOf(error);
  }
  if (item === current) isTouched = false;
  refresh(item);
}

function captionAgain(event) {
  event.preventDefault();
  if (!current) return;
  caption(current);
  show(current);
}

async function showModels() {
  try {
    await loadModels();
    showProblem("");
  } catch (error) {
    if (error.status === 401) showProblem(messageOf(error));
  }
}

function showProblem(text) {
  notice = text;
  showProblems();
}

function showProblems() {
  element("problem").textContent = [notice, current?.error].filter(Boolean).join(" ");
}

function wordButtons() {
  return [...document.querySelectorAll("#captions .word")];
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
