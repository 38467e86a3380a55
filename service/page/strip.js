// The strip of images: a button with a small copy of each.

const EDGE = 144; // pixels of a small copy

/** The images in the strip; `choose` is called with the one whose button is pressed. */
export class Strip {
  constructor(list, choose) {
    this.list = list;
    this.choose = choose;
    this.buttons = new Map(); // by item
  }

  /** Add an item, or show what has changed about it; `current` is the one that is shown. */
  update(item, current) {
    if (!this.buttons.has(item)) this.add(item);
    for (const [one, button] of this.buttons) {
      if (one === current) button.setAttribute("aria-current", "true");
      else button.removeAttribute("aria-current");
    }
    const button = this.buttons.get(item);
    const text = item.response?.captions[0].text ?? { failed: "failed", running: "is being captioned" }[item.state] ?? "waits";
    button.className = `is-${item.state}`;
    button.setAttribute("aria-label", `Image ${[...this.buttons.keys()].indexOf(item) + 1}: ${text}`);
  }

  add(item) {
    const button = document.createElement("button");
    button.type = "button";
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = EDGE;
    button.append(canvas);
    button.addEventListener("click", () => this.choose(item));
    const entry = document.createElement("li");
    entry.append(button);
    this.list.append(entry);
    this.buttons.set(item, button);
    drawCopy(canvas, item.file);
  }
}

/** Draw the middle of an image; one that the browser cannot show stays blank. */
async function drawCopy(canvas, file) {
  try {
    const image = await createImageBitmap(file);
    const edge = Math.min(image.width, image.height);
    const [x, y] = [(image.width - edge) / 2, (image.height - edge) / 2];
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(image, x, y, edge, edge, 0, 0, canvas.width, canvas.height);
    image.close();
  } catch {
    // a format that the browser does not know
  }
}
