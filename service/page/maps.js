// Attention maps over images, on canvases.

import { ramp } from "./ramp.js";

const COLORS = ramp();
const FINER = 8; // cells of a smooth map per cell of the grid, along each axis

/**
 * Draw a word's map over the canvas's whole area, which shows an image of image.width x image.height pixels.
 * `look` is smooth, cells or off; `opacity` 0 to 1.
 */
export function drawMap(canvas, word, image, grid, { look, opacity, box }) {
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  if (!word || look === "off") return;
  const across = canvas.width / image.width;
  const down = canvas.height / image.height;
  if (word.map) {
    const [x0, y0, x1, y1] = grid.covers;
    const cells = look === "smooth" ? smooth(word.map) : word.map;
    context.imageSmoothingEnabled = look === "smooth";
    context.imageSmoothingQuality = "high";
    context.drawImage(colored(cells, opacity), x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down);
  }
  if (box && word.box) {
    const [x0, y0, x1, y1] = word.box;
    for (const [color, width] of [["#000", 4], ["#fff", 2]]) {
      context.strokeStyle = color;
      context.lineWidth = width * (window.devicePixelRatio || 1);
      context.strokeRect(x0 * across, y0 * down, (x1 - x0) * across, (y1 - y0) * down);
    }
  }
}

/** Draw the color scale into a canvas. */
export function drawScale(canvas) {
  const context = canvas.getContext("2d");
  for (let x = 0; x < canvas.width; x++) {
    const [red, green, blue] = COLORS[Math.round((255 * x) / (canvas.width - 1))];
    context.fillStyle = `rgb(${red} ${green} ${blue})`;
    context.fillRect(x, 0, 1, canvas.height);
  }
}

/** Return the map with FINER times as many cells along each axis, interpolated linearly between the cells' centers. */
export function smooth({ rows, columns, values }) {
  const finer = { rows: rows * FINER, columns: columns * FINER, values: [] };
  for (let row = 0; row < finer.rows; row++) {
    const [top, bottom, below] = neighbors(row, rows);
    for (let column = 0; column < finer.columns; column++) {
      const [left, right, beside] = neighbors(column, columns);
      const upper = values[top * columns + left] * (1 - beside) + values[top * columns + right] * beside;
      const lower = values[bottom * columns + left] * (1 - beside) + values[bottom * columns + right] * beside;
      finer.values.push(upper * (1 - below) + lower * below);
    }
  }
  return finer;
}

/** Return the two cells between whose centers a finer cell's center is, and the share of the second. */
function neighbors(index, count) {
  const position = Math.min(count - 1, Math.max(0, (index + 0.5) / FINER - 0.5));
  const first = Math.floor(position);
  return [first, Math.min(count - 1, first + 1), position - first];
}

/** Return a canvas with a pixel per cell: its color by value relative to the peak, more transparent where it is low. */
function colored({ rows, columns, values }, opacity) {
  const peak = Math.max(...values) || 1;
  const pixels = new ImageData(columns, rows);
  values.forEach((value, index) => {
    const share = value / peak;
    const [red, green, blue] = COLORS[Math.round(255 * share)];
    pixels.data.set([red, green, blue, 255 * opacity * (0.4 + 0.55 * share)], 4 * index);
  });
  const canvas = document.createElement("canvas");
  canvas.width = columns;
  canvas.height = rows;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  return canvas;
}
