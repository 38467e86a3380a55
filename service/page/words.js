// Captions as text whose words can be selected, with a small map for each.

import { drawMap } from "./maps.js";

const MIN_RELIANCE = 0.1; // nats: below it, the word does not depend on the image
const MIN_CONFIDENCE = 0.25; // of a word, if the checkpoint is calibrated
const MIN_PROBABILITY = 0.2; // if it is not

/** Return whether a word that depends on the image may be wrong. */
export function isUncertain(word) {
  if (isIndependent(word)) return false;
  return word.confidence === null ? word.probability < MIN_PROBABILITY : word.confidence < MIN_CONFIDENCE;
}

/** Return whether the caption would have the word without the image, too. */
export function isIndependent(word) {
  return word.image_reliance !== null && word.image_reliance < MIN_RELIANCE;
}

/** Return what a word's figures mean, in a sentence. */
export function meaning(word) {
  const parts = [];
  if (word.image_reliance !== null && word.image_reliance < -MIN_RELIANCE) {
    parts.push(`Gray: the image makes this word ${times(-word.image_reliance)} times less likely. Its map means little.`);
  } else if (isIndependent(word)) {
    parts.push("Gray: this word is as likely without the image. Its map means little.");
  } else if (word.image_reliance !== null) {
    parts.push(`The image makes this word ${times(word.image_reliance)} times as likely.`);
  }
  if (isUncertain(word)) parts.push("Dotted: the network is not sure that the image shows this.");
  return parts.join(" ");
}

/** Return e ** nats as text. */
function times(nats) {
  const factor = Math.exp(nats);
  return factor < 10 ? factor.toFixed(1) : factor < 10_000 ? Math.round(factor).toLocaleString("en") : "over 10,000";
}

/** Return a caption's element with a button per word. `select` is called with the word's index. */
export function captionElement(caption, label, select) {
  const block = document.createElement("article");
  block.className = "caption";
  const text = document.createElement("p");
  text.className = "text";
  text.dir = "auto";
  if (caption.language) text.lang = caption.language;
  if (label) block.append(note("label", label));
  block.append(text);
  for (const [index, word] of caption.words.entries()) addWord(text, word, index, select, before(caption, index));
  finishCaption(block, caption);
  return block;
}

/** Append a word that has arrived to a caption's text. */
export function addWord(text, word, index, select, between) {
  text.append(between, wordButton(word, index, select));
}

/** Add what follows the last word, and the caption's confidence. */
export function finishCaption(block, caption) {
  const last = caption.words.at(-1);
  block.querySelector(".text").append(caption.text === null ? "" : chars(caption.text).slice(last ? last.end : 0).join(""));
  if (caption.text === null) block.append(note("figures", "The network is too uncertain about this image for a caption."));
  else if (caption.confidence !== null) {
    block.append(note("figures", `Confidence of the caption: ${Math.round(100 * caption.confidence)} %`));
  }
}

/** Return a small copy of a photo, for `miniature`; blank if the browser cannot show the photo. */
export function smallCopy(photo, image) {
  const canvas = document.createElement("canvas");
  canvas.width = 144;
  canvas.height = Math.round(Math.min(220, Math.max(40, (144 * image.height) / image.width)));
  if (photo) canvas.getContext("2d").drawImage(photo, 0, 0, canvas.width, canvas.height);
  return canvas;
}

/** Return a figure with a word's map over a small copy, for the pointer; the words' buttons are for everyone. */
export function miniature(copy, word, image, grid, select) {
  const figure = document.createElement("figure");
  const [canvas, map] = [document.createElement("canvas"), document.createElement("canvas")];
  for (const one of [canvas, map]) Object.assign(one, { width: copy.width, height: copy.height });
  drawMap(map, word, image, grid, { look: "smooth", opacity: 0.75, box: false });
  canvas.getContext("2d").drawImage(copy, 0, 0);
  canvas.getContext("2d").drawImage(map, 0, 0);
  const caption = document.createElement("figcaption");
  caption.dir = "auto";
  caption.textContent = word.text;
  if (isIndependent(word)) figure.classList.add("is-independent");
  figure.append(canvas, caption);
  figure.addEventListener("pointerenter", select);
  figure.addEventListener("click", select);
  return figure;
}

/** Move between the words of a caption with the arrow keys, Home and End. */
export function moveByKey(event) {
  const button = event.target.closest(".word");
  if (!button) return;
  const all = [...document.querySelectorAll("#captions .word")];
  const isRightToLeft = getComputedStyle(button).direction === "rtl";
  const forward = isRightToLeft ? "ArrowLeft" : "ArrowRight";
  const backward = isRightToLeft ? "ArrowRight" : "ArrowLeft";
  const at = all.indexOf(button);
  const next = { [forward]: at + 1, ArrowDown: at + 1, [backward]: at - 1, ArrowUp: at - 1, Home: 0, End: all.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  all[Math.min(all.length - 1, Math.max(0, next))].focus();
}

function wordButton(word, index, select) {
  const button = document.createElement("button");
  button.type = "button";
  button.className = "word";
  button.textContent = word.text;
  button.setAttribute("aria-pressed", "false");
  button.style.setProperty("--probability", word.probability);
  if (isIndependent(word)) button.classList.add("is-independent");
  if (isUncertain(word)) button.classList.add("is-uncertain");
  button.addEventListener("pointerenter", () => select(index));
  button.addEventListener("focus", () => select(index));
  button.addEventListener("click", () => select(index));
  return button;
}

/** Return the text between a word and the one before it; offsets count code points. */
function before(caption, index) {
  const start = index ? caption.words[index - 1].end : 0;
  return chars(caption.text).slice(start, caption.words[index].start).join("");
}

function chars(text) {
  return Array.from(text ?? "");
}

function note(kind, text) {
  const paragraph = document.createElement("p");
  paragraph.className = kind;
  paragraph.textContent = text;
  return paragraph;
}
