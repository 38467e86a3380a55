// The form of settings: what a request is made with.

import { models } from "./api.js";

const form = () => document.getElementById("settings").elements;
let checkpoints = [];

/** Fill the lists of checkpoints and languages. Throws Problem. */
export async function loadModels() {
  checkpoints = await models(key());
  form().model.replaceChildren(...checkpoints.map((model) => new Option(model.name, model.name)));
  showDefaults();
}

/** Show the languages and defaults of the chosen checkpoint. */
export function showDefaults() {
  const { defaults = {}, languages = [] } = chosen() ?? {};
  const names = new Intl.DisplayNames(["en"], { type: "language" });
  form().language.replaceChildren(...languages.map((tag) => new Option(`${names.of(tag)} (${tag})`, tag)));
  for (const name of ["num_beams", "num_return_sequences", "max_words", "length_penalty", "temperature", "seed"]) {
    form()[name].placeholder = defaults[name] ?? "";
  }
}

/** Return the options that are set; those that are the checkpoint's defaults are left out. */
export function options() {
  const values = Object.fromEntries(new FormData(document.getElementById("settings")));
  delete values.key;
  if (checkpoints.length < 2) delete values.model;
  if (values.language === chosen()?.languages[0]) delete values.language;
  if (values.strategy !== "sample") for (const name of ["temperature", "seed"]) delete values[name];
  const captions = Number(values.num_return_sequences) || 1;
  const { strategy = "beam", num_beams: beams = 3 } = chosen()?.defaults ?? {};
  const isBeam = (values.strategy || strategy) === "beam";
  if (isBeam && captions > (Number(values.num_beams) || beams)) values.num_beams = captions;
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== ""));
}

export function key() {
  return form().key.value;
}

/** Open the settings and return what to say about an error, if it is one of the key's. */
export function messageOf(error) {
  if (error.code !== "missing_key" && error.code !== "wrong_key") return error.message;
  document.querySelector(".settings").open = true;
  return `${error.message}. Enter it under Settings.`;
}

function chosen() {
  return checkpoints.find((one) => one.name === form().model.value);
}
