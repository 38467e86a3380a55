// The colors of maps: perceptually uniform, dark purple to yellow, made in OKLab (Björn Ottosson, "A perceptual color space for
// image processing", 2020). Equal steps of a value are equal distances in OKLab, and lightness only rises.

const STEPS = 256;
// Lightness, chroma and hue (degrees) of the ramp's anchors; between them all three change linearly.
const ANCHORS = [
  [0.22, 0.09, 300],
  [0.42, 0.17, 325],
  [0.62, 0.2, 385],
  [0.8, 0.16, 430],
  [0.93, 0.15, 465],
];

/** Return 256 colors as [red, green, blue] of 0 to 255. */
export function ramp() {
  const fine = Array.from({ length: 8 * STEPS + 1 }, (_, index) => anchorColor(index / (8 * STEPS)));
  const lengths = [0];
  for (let index = 1; index < fine.length; index++) {
    lengths.push(lengths[index - 1] + distance(fine[index - 1], fine[index]));
  }
  const total = lengths.at(-1);
  const colors = [];
  let at = 0;
  for (let step = 0; step < STEPS; step++) {
    while (at < lengths.length - 1 && lengths[at] < (total * step) / (STEPS - 1)) at++;
    colors.push(toRgb(fine[at]));
  }
  return colors;
}

/** Return the OKLab color [L, a, b] at a position of 0 to 1 between the anchors. */
function anchorColor(position) {
  const scaled = position * (ANCHORS.length - 1);
  const index = Math.min(ANCHORS.length - 2, Math.floor(scaled));
  const share = scaled - index;
  const [lightness, chroma, hue] = ANCHORS[index].map((value, part) => value + share * (ANCHORS[index + 1][part] - value));
  const angle = (hue * Math.PI) / 180;
  return [lightness, chroma * Math.cos(angle), chroma * Math.sin(angle)];
}

function distance(one, other) {
  return Math.hypot(...one.map((value, part) => value - other[part]));
}

/** Return an OKLab color as sRGB of 0 to 255. */
function toRgb([lightness, a, b]) {
  const long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const short = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  return [
    4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short,
    -1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short,
    -0.0041960863 * long - 0.7034186147 * medium + 1.707614701 * short,
  ].map((linear) => {
    const limited = Math.min(1, Math.max(0, linear));
    return Math.round(255 * (limited <= 0.0031308 ? 12.92 * limited : 1.055 * limited ** (1 / 2.4) - 0.055));
  });
}
