// What a person sees of the panels, measured.

// No smaller text is legible, in pixels.
const LEGIBLE = 9;

// Texts that are too small, are cut off, or lie on one another, in an element.
export function badlySet(element) {
  const texts = [];
  const bad = [];
  const walk = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const node = walk.currentNode;
    if (!node.data.trim() || !node.parentElement.checkVisibility()) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const box = range.getBoundingClientRect();
    const what = node.data.trim();
    const size = parseFloat(getComputedStyle(node.parentElement).fontSize);
    if (size < LEGIBLE) bad.push(`too small, ${size} px: ${what}`);
    for (let around = node.parentElement; ; around = around.parentElement) {
      const clips = around === element || getComputedStyle(around).overflow !== 'visible';
      const bounds = around.getBoundingClientRect();
      const inside =
        box.left >= bounds.left - 1 && box.right <= bounds.right + 1 && box.top >= bounds.top - 1 && box.bottom <= bounds.bottom + 1;
      if (clips && !inside) {
        bad.push(`cut off: ${what}`);
        break;
      }
      if (around === element) break;
    }
    for (const other of texts) {
      const wide = Math.min(box.right, other.box.right) - Math.max(box.left, other.box.left);
      const high = Math.min(box.bottom, other.box.bottom) - Math.max(box.top, other.box.top);
      if (wide > 1 && high > 4) bad.push(`on one another: ${other.what} and ${what}`);
    }
    texts.push({ box, what });
  }
  return bad;
}

// How many pixels of a picture of the page are red, for each of the elements.
export async function red(png, elements) {
  const picture = new Image();
  picture.src = `data:image/png;base64,${png}`;
  await picture.decode();
  const canvas = new OffscreenCanvas(picture.width, picture.height);
  const drawing = canvas.getContext('2d', { willReadFrequently: true });
  drawing.drawImage(picture, 0, 0);
  return elements.map((element) => {
    const { x, y, width, height } = element.getBoundingClientRect();
    const { data } = drawing.getImageData(x + scrollX, y + scrollY, width, height);
    let count = 0;
    for (let at = 0; at < data.length; at += 4) count += isRed(data[at], data[at + 1], data[at + 2]);
    return count;
  });
}

// Hues from 340 to 10 degrees, neither pale nor dark.
function isRed(r, g, b) {
  const [least, most] = [Math.min(g, b), Math.max(g, b)];
  if (r < 110 || r <= most || (r - least) / r < 0.5) return false;
  const hue = (60 * (g - b)) / (r - least);
  return hue >= -20 && hue <= 10;
}
