/* Where the APs stand: the layouts of scripts/plots/sites.py. */
"use strict";

const Layouts = (() => {
  /** Rows of nearly equal length, each evenly spread. */
  function grid(count, sideM) {
    const rows = Math.round(Math.sqrt(count)), aps = [];
    for (let row = 0; row < rows; row++) {
      const columns = Math.floor((count * (row + 1)) / rows) - Math.floor((count * row) / rows);
      for (let column = 0; column < columns; column++) {
        aps.push({ x: ((column + 0.5) * sideM) / columns, y: ((row + 0.5) * sideM) / rows });
      }
    }
    return aps;
  }

  /** Evenly on a circle around the centre, the first to the east. */
  function circle(count, sideM, radiusM) {
    return Array.from({ length: count }, (_, i) => {
      const angle = (2 * Math.PI * i) / count;
      return { x: sideM / 2 + radiusM * Math.cos(angle), y: sideM / 2 + radiusM * Math.sin(angle) };
    });
  }

  /** Evenly on the horizontal line through the centre. */
  function line(count, sideM) {
    return Array.from({ length: count }, (_, i) => ({ x: ((i + 0.5) * sideM) / count, y: sideM / 2 }));
  }

  /** Independent uniform places; the same seed gives the same ones, and more APs keep the earlier ones. */
  function uniform(count, sideM, seed) {
    const next = generator(seed);
    return Array.from({ length: count }, () => ({ x: sideM * next(), y: sideM * next() }));
  }

  /** Numbers in [0, 1): a Weyl sequence through the 32-bit finaliser of MurmurHash3. */
  function generator(seed) {
    let state = Math.imul(seed + 1, 0x9e3779b9) >>> 0;
    return () => {
      state = (state + 0x9e3779b9) >>> 0;
      let z = state;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      return ((z ^ (z >>> 16)) >>> 0) / 2 ** 32;
    };
  }

  /** APs of a layout by its name. */
  function place(name, count, sideM, radiusM, seed) {
    if (name === "grid") return grid(count, sideM);
    if (name === "circle") return circle(count, sideM, radiusM);
    if (name === "line") return line(count, sideM);
    if (name === "uniform") return uniform(count, sideM, seed);
    throw new Error(`unknown layout ${name}`);
  }

  return { place };
})();
