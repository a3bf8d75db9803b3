/* The two pictures of the page: the map and the close-up of the user. Drawn by Plotly from what bounds.js computes. */
"use strict";

const Drawing = (() => {
  const SIDE = SETTINGS.sideM;
  const FINE = 101, COARSE = 51; // points of the map per side, at rest and while a slider moves
  const MOST_CURVES = 8; // more would hide the map
  const FIXED = [0.03, 30]; // ends of the colour scale, metres
  const INK = "#222222", QUIET = "#8a8a8a", CURVES = "#d55e00";
  const CONFIG = { displayModeBar: false, responsive: false, doubleClick: false, showTips: false };
  const FONT = { family: "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif", size: 13, color: INK };
  const STEPS = [[1, 3], [1, 2, 3, 5], [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8]];

  /** "0.234 m", "12.3 m", "infinite". */
  function metres(value) {
    if (!Number.isFinite(value)) return "infinite";
    if (value < 5e-5) return "0 m";
    return value < 0.01 ? `${(value * 1000).toPrecision(2)} mm` : `${Number(value.toPrecision(3))} m`;
  }

  /** Contour levels between two values: 0.1, 0.3, 1, 3, 10 and further decades, finer where few lie between. */
  function levels(low, high) {
    let found = [];
    for (const steps of STEPS) {
      const power = Math.floor(Math.log10(low));
      found = [];
      for (let p = power; p < power + 12; p++) {
        for (const step of steps) {
          const level = Number((step * 10 ** p).toPrecision(3));
          if (level > low && level < high) found.push(level);
        }
      }
      if (found.length >= 3) break;
    }
    return found.slice(0, 9);
  }

  /** Heat map (of the logarithm) and contour lines of a network; `moving`: in a hurry. */
  function mapTraces(network, fit, moving) {
    const { axis, values } = Bounds.pebMap(network, SIDE, moving ? COARSE : FINE);
    const finite = values.flat().filter(Number.isFinite).sort((a, b) => a - b);
    const share = (q) => finite[Math.min(finite.length - 1, Math.floor(q * finite.length))];
    let [low, high] = FIXED;
    if (fit && finite.length > 0) {
      [low, high] = [share(0.01), share(0.99)];
      if (high < 2 * low) [low, high] = [low / 1.2, low * 2];
    }
    const log = values.map((row) => row.map((v) => (Number.isFinite(v) ? Math.log10(v) : null)));
    const ticks = [];
    for (let p = -6; p < 6; p++) for (const s of high / low < 20 ? [1, 1.5, 2, 3, 5, 7] : [1, 3]) ticks.push(s * 10 ** p);
    const shown = ticks.filter((t) => t >= low * 0.999 && t <= high * 1.001).map((t) => Number(t.toPrecision(3)));
    const traces = [{
      type: "heatmap", x: axis, y: axis, z: log, customdata: values.map((row) => row.map(metres)),
      hovertemplate: "x %{x:.0f} m, y %{y:.0f} m<br><b>bound %{customdata}</b><extra></extra>",
      colorscale: SETTINGS.colours, zmin: Math.log10(low), zmax: Math.log10(high), zsmooth: "best", showlegend: false,
      colorbar: {
        title: { text: "position error bound [m]", side: "right" }, thickness: 14, len: 1, ypad: 0, xpad: 4, outlinewidth: 0, x: 1.01,
        tickvals: shown.map(Math.log10), ticktext: shown.map(String),
      },
    }];
    if (finite.length > 0) {
      for (const level of levels(finite[0], finite[finite.length - 1])) {
        traces.push({
          type: "contour", x: axis, y: axis, z: values.map((row) => row.map((v) => (Number.isFinite(v) ? v : null))),
          autocontour: false, showscale: false, hoverinfo: "skip", showlegend: false, connectgaps: false,
          contours: {
            start: level, end: level, size: 1, coloring: "none", showlabels: !moving, labelformat: "~g",
            labelfont: { size: 12, color: "white" },
          },
          line: { color: "white", width: 1.3 }, colorscale: [[0, "white"], [1, "white"]],
        });
      }
    }
    return traces;
  }

  /** The APs by distance from the user, nearest first. */
  function byDistance(network, user) {
    const ground = (ap) => Math.hypot(ap.x - user.x, ap.y - user.y);
    return [...network.aps].sort((p, q) => ground(p) - ground(q));
  }

  /** The same, but that from whose arrival the others' are subtracted comes first: the one that was chosen, or the
      nearest. */
  function fromReference(network, user) {
    const sorted = byDistance(network, user), chosen = network.aps[network.reference];
    return chosen === undefined ? sorted : [chosen, ...sorted.filter((ap) => ap !== chosen)];
  }

  /** Curves on which the user is by one measurement each: circles, or hyperbolae to the reference AP. */
  function curves(network, user, reachM, near) {
    const tdoa = network.model.family === "tdoa", h = network.heightM, out = [];
    const sorted = tdoa ? fromReference(network, user) : byDistance(network, user);
    if (tdoa) {
      for (const other of sorted.slice(1, MOST_CURVES + 1)) {
        const difference = Bounds.rangeDifference(user, sorted[0], other, h);
        out.push(Bounds.hyperbolaPoints(sorted[0], other, difference, h, reachM, near));
      }
    } else {
      for (const ap of sorted.slice(0, MOST_CURVES)) {
        const range = Math.hypot(ap.x - user.x, ap.y - user.y, h);
        out.push(Bounds.circlePoints(ap, range, h, reachM, near));
      }
    }
    return out;
  }

  /** All curves as one line with gaps, so that they have one entry in the legend. */
  function joined(list) {
    const out = { x: [], y: [] };
    for (const curve of list) {
      out.x.push(...curve.x, null);
      out.y.push(...curve.y, null);
    }
    return out;
  }

  /** A round factor that makes the ellipse about a fifteenth of the map. */
  function enlargement(shape) {
    const wanted = SIDE / 15 / (shape.long * 2.4477);
    if (wanted < 2) return 1;
    const power = 10 ** Math.floor(Math.log10(wanted));
    return [5, 2, 1].map((s) => s * power).find((f) => f <= wanted);
  }

  /** Path data of curves in pixels of a square of `size` pixels; null ends a stroke. */
  function path({ x, y }, size) {
    let out = "", pen = "M";
    for (let i = 0; i < x.length; i++) {
      if (x[i] === null) { pen = "M"; continue; }
      out += `${pen}${((x[i] / SIDE) * size).toFixed(1)} ${((1 - y[i] / SIDE) * size).toFixed(1)}`;
      pen = "L";
    }
    return out;
  }

  function triangles(aps, size, radius) {
    return aps.map(({ x, y }) => {
      const px = (x / SIDE) * size, py = (1 - y / SIDE) * size, half = radius * 0.9;
      return `M${px - half} ${py + radius * 0.6}L${px + half} ${py + radius * 0.6}L${px} ${py - radius}Z`;
    }).join("");
  }

  /** What moves with the user, in an SVG over the map (Plotly would redraw all contours at every move).
      Returns the words of the legend that depend on it. */
  function drawOverlay(svg, map, network, user) {
    const area = map.querySelector(".nsewdrag").getBoundingClientRect(), frame = svg.parentElement.getBoundingClientRect();
    const size = area.width, set = (id, d) => svg.querySelector(id).setAttribute("d", d);
    svg.style.left = `${area.left - frame.left}px`;
    svg.style.top = `${area.top - frame.top}px`;
    svg.setAttribute("width", size);
    svg.setAttribute("height", size);
    const tdoa = network.model.family === "tdoa";
    const sorted = tdoa ? fromReference(network, user) : byDistance(network, user);
    const J = Bounds.fisher(network, user.x, user.y);
    const shape = Bounds.ellipse(J), factor = shape ? enlargement(shape) : 1;
    const radius = network.aps.length <= 40 ? 7 : 5;
    set("#o-curves", path(joined(curves(network, user, 4 * SIDE, null)), size));
    set("#o-curves-rim", svg.querySelector("#o-curves").getAttribute("d"));
    set("#o-ellipse", path(Bounds.ellipsePoints(J, user.x, user.y, factor), size));
    set("#o-aps", triangles(tdoa ? sorted.slice(1) : sorted, size, radius));
    set("#o-reference", tdoa ? triangles(sorted.slice(0, 1), size, 9) : "");
    const px = (user.x / SIDE) * size, py = (1 - user.y / SIDE) * size;
    svg.querySelector("#o-user").setAttribute("transform", `translate(${px} ${py})`);
    const count = tdoa ? network.aps.length - 1 : network.aps.length, drawn = Math.min(count, MOST_CURVES);
    return {
      curves: (tdoa ? "same time difference" : "same range") + (drawn < count ? ` (nearest ${drawn} of ${count})` : ""),
      ellipse: !shape ? "no error ellipse" : factor === 1 ? "95 % error ellipse" : `95 % error ellipse, ${factor} × enlarged`,
    };
  }

  function axis(title, range, more = {}) {
    return { title: { text: title, standoff: 6 }, range, fixedrange: true, zeroline: false, ticks: "outside",
      tickcolor: QUIET, linecolor: QUIET, showgrid: false, ...more };
  }

  /** Draw heat map and contours of a network, as large a square as fits.
      While something moves, coarsely and without the numbers on the contours: placing them takes Plotly longest. */
  function drawMap(element, network, fit, moving) {
    const width = element.parentElement.clientWidth, narrow = width < 520;
    const margin = { l: 52, r: narrow ? 78 : 92, t: 8, b: 44 };
    const size = Math.max(200, Math.min(width - margin.l - margin.r, Math.max(360, window.innerHeight - 240)));
    const traces = mapTraces(network, fit, moving), empty = traces.length === 1 && traces[0].z.flat().every((v) => v === null);
    Plotly.react(element, traces, {
      annotations: empty ? [{ text: "no position is determined anywhere", x: 0.5, y: 0.06, xref: "paper", yref: "paper",
        showarrow: false }] : [],
      font: { ...FONT, size: narrow ? 12 : 13 }, dragmode: false, hovermode: "closest", plot_bgcolor: "#d9d9d9",
      width: size + margin.l + margin.r, height: size + margin.t + margin.b, margin, showlegend: false,
      xaxis: axis("x [m]", [0, SIDE], { constrain: "domain" }),
      yaxis: axis("y [m]", [0, SIDE], { constrain: "domain", scaleanchor: "x" }),
    }, CONFIG);
  }

  /** Draw the surroundings of the user to scale: a few standard deviations with ellipse and curves. */
  function drawClose(element, network, user) {
    const J = Bounds.fisher(network, user.x, user.y);
    const outline = Bounds.ellipsePoints(J, user.x, user.y);
    const known = outline.x.length > 0;
    const half = known
      ? 1.3 * Math.max(...outline.x.map((x) => Math.abs(x - user.x)), ...outline.y.map((y) => Math.abs(y - user.y)))
      : 0.1 * SIDE;
    const near = joined(curves(network, user, 3 * half, user));
    // Relative to the user: so close, coordinates would need too many digits.
    const shifted = ({ x, y }) => ({
      x: x.map((v) => (v === null ? null : v - user.x)), y: y.map((v) => (v === null ? null : v - user.y)),
    });
    const traces = [
      { ...shifted(near), mode: "lines", line: { color: CURVES, width: 1.5 } },
      { ...shifted(outline), mode: "lines", fill: "toself", fillcolor: "rgba(120,120,120,0.2)",
        line: { color: INK, width: 1.5 } },
      { x: [0], y: [0], mode: "markers", marker: { symbol: "x", size: 12, color: INK, line: { color: "white", width: 2 } } },
    ].map((trace) => ({ type: "scatter", hoverinfo: "skip", showlegend: false, ...trace }));
    const range = [-half, half], look = { nticks: 6, tickformat: "~g" }, margin = { l: 72, r: 10, t: 28, b: 40 };
    const size = Math.max(160, Math.min(element.parentElement.clientWidth - margin.l - margin.r, 320));
    Plotly.react(element, traces, {
      font: { ...FONT, size: 12 }, dragmode: false, hovermode: false, margin,
      width: size + margin.l + margin.r, height: size + margin.t + margin.b,
      title: { text: known ? "close-up, 95 % ellipse to scale" : "close-up: no ellipse, not determined",
        font: { size: 13 }, x: 0.02, y: 0.98, yanchor: "top" },
      xaxis: axis("x \u2212 user [m]", range, look),
      yaxis: axis("y \u2212 user [m]", range, look),
    }, CONFIG);
  }

  return { metres, levels, mapTraces, byDistance, drawMap, drawOverlay, drawClose };
})();
