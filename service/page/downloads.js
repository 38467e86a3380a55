// What can be taken away: contact sheet, response, curl command.

import { contactSheet, explanationOptions, urlOf } from "./api.js";

/** Connect the buttons; `current` returns the image that is shown: {file, options, response, sentence}. */
export function connectDownloads(current, key, fail) {
  document.getElementById("json").addEventListener("click", () => {
    const { file, response } = current();
    save(new Blob([JSON.stringify(response, null, 1)], { type: "application/json" }), `${stem(file)}.json`);
  });
  document.getElementById("sheet").addEventListener("click", async () => {
    const { file, options, sentence } = current();
    try {
      const chosen = sentence === null ? options : explanationOptions(options, sentence);
      save(await contactSheet(file, chosen, key()), `${stem(file)}-words.png`);
    } catch (error) {
      fail(error);
    }
  });
  document.getElementById("copy-curl").addEventListener("click", async (event) => {
    const button = event.currentTarget;
    try {
      await navigator.clipboard.writeText(document.getElementById("curl").textContent);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it below"; // a page without TLS may not write to the clipboard
    }
    setTimeout(() => (button.textContent = "Copy curl command"), 2000);
  });
}

/** Return the command that gives the same response; the key is not in it. */
export function curlCommand({ file, options, sentence }, hasKey) {
  const path = sentence === null ? "v1/captions" : "v1/explanations";
  const url = urlOf(path, sentence === null ? options : explanationOptions(options, sentence));
  const key = hasKey ? " -H 'x-api-key: YOUR-KEY'" : "";
  return `curl${key} --data-binary ${quoted(`@${file.name}`)} ${quoted(url.href)}`;
}

/** Return text as one word of a POSIX shell. */
function quoted(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function stem(file) {
  return file.name.replace(/\.[^.]*$/, "") || "image";
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
