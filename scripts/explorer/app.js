/* What the person does: controls to state, state to pictures and numbers. */
"use strict";

(() => {
  const SIDE = SETTINGS.sideM, BANDWIDTHS_MHZ = SETTINGS.bandwidthsMhz, GRAB_PX = 34;
  const REST_MS = 150; // after this long without a change the map is drawn finely
  const byId = (id) => document.getElementById(id);
  const map = byId("map"), close = byId("close");
  const state = { ...SETTINGS.defaults, user: { ...SETTINGS.defaults.user }, seed: 0, reference: null };
  let network = null, pending = null, resting = 0;

  const HINTS = {
    toa: "User and access points share a clock: every arrival time is a range, a circle around its AP.",
    tdoa: "The user's clock is unknown: only differences between APs count. Each one leaves a hyperbola.",
    rtt: "The signal goes there and back: the user's clock cancels, and the noise is that of two passes, halved.",
  };

  /** The network that the controls describe, as bounds.js wants it. */
  function makeNetwork() {
    const preset = SETTINGS.sync[state.sync];
    const model = {
      family: state.family,
      rmsBandwidthHz: Bounds.rmsBandwidthHz(state.bandwidthMhz * 1e6, SETTINGS.subcarrierSpacingHz),
      snrReference: 10 ** (state.snrDb / 10),
      referenceDistanceM: SETTINGS.referenceDistanceM,
      slopeDb: state.pathloss ? SETTINGS.slopeDb : 0,
      processingErrorS: SETTINGS.processingErrorS,
    };
    const places = Layouts.place(state.layout, state.aps, SIDE, SETTINGS.radiusM, state.seed);
    const aps = places.map((place) => ({ ...place, syncS: preset.stdS }));
    const node = { x: SIDE / 2, y: SIDE / 2 };
    const heard = preset.calibrated ? Bounds.calibrated(model, aps, state.height, node) : aps;
    return { ...Bounds.network(model, heard, state.height), reference: state.reference };
  }

  /** Draw soon: everything, or only what moves with the user. Several calls within a frame are one drawing. */
  function refresh(all) {
    if (pending === null) requestAnimationFrame(() => { const whole = pending; pending = null; render(whole); });
    pending = all || pending === true;
  }

  function render(all) {
    showControls();
    if (all || network === null) {
      const first = network === null;
      network = makeNetwork();
      Drawing.drawMap(map, network, state.fit, !first);
      clearTimeout(resting);
      if (!first) resting = setTimeout(drawFinely, REST_MS);
    }
    const words = Drawing.drawOverlay(byId("overlay"), map, network, state.user);
    byId("l-curves").textContent = words.curves;
    byId("l-ellipse").textContent = words.ellipse;
    byId("l-reference").hidden = byId("reference-row").hidden = state.family !== "tdoa";
    byId("l-reference-name").textContent = state.reference === null ? "the nearest AP" : `AP ${state.reference + 1}`;
    Drawing.drawClose(close, network, state.user);
    showNumbers();
    count("drawn");
  }

  function drawFinely() {
    Drawing.drawMap(map, network, state.fit, false);
    count("fine");
  }

  /** How often something was drawn, for whoever waits for it (the tests do). */
  function count(what) {
    document.documentElement.dataset[what] = String(Number(document.documentElement.dataset[what] || 0) + 1);
  }

  /** One entry per AP; a reference that is no longer there gives way to the nearest AP. */
  function listReferences() {
    const list = byId("reference");
    if (state.reference !== null && state.reference >= state.aps) state.reference = null;
    if (list.options.length !== state.aps + 1) {
      const numbers = Array.from({ length: state.aps }, (_, index) => new Option(`AP ${index + 1}`, index));
      list.replaceChildren(new Option("the nearest", ""), ...numbers);
    }
    list.value = state.reference === null ? "" : String(state.reference);
  }

  function showControls() {
    listReferences();
    const values = {
      aps: String(state.aps), height: `${state.height} m`, bandwidth: `${state.bandwidthMhz} MHz`,
      snr: `${state.snrDb} dB` + (state.pathloss ? ` at ${SETTINGS.referenceDistanceM} m` : ""),
      ux: `${Math.round(state.user.x)} m`, uy: `${Math.round(state.user.y)} m`,
    };
    for (const [id, text] of Object.entries(values)) {
      byId(id).setAttribute("aria-valuetext", text);
      document.querySelector(`output[for=${id}]`).textContent = text;
    }
    byId("ux").value = state.user.x;
    byId("uy").value = state.user.y;
    byId("shuffle").disabled = state.layout !== "uniform";
    byId("family-hint").textContent = HINTS[state.family];
  }

  function showNumbers() {
    const { model, heightM } = network, { x, y } = state.user, metres = Drawing.metres;
    const J = Bounds.fisher(network, x, y), bound = Bounds.peb(J), shape = Bounds.ellipse(J);
    const gdop = Bounds.gdop(network, x, y), factor = Math.sqrt(-2 * Math.log(0.05));
    byId("n-position").textContent = `${x.toFixed(0)} m, ${y.toFixed(0)} m`;
    byId("n-peb").textContent = metres(bound);
    byId("n-peb").dataset.value = bound;
    byId("n-gdop").textContent = Number.isFinite(gdop) ? gdop.toFixed(2) : "infinite";
    byId("n-ellipse").textContent = shape
      ? `${metres(factor * shape.long)} × ${metres(factor * shape.short)}` : "infinite";
    const nearest = Drawing.byDistance(network, state.user)[0];
    const slant = Math.hypot(nearest.x - x, nearest.y - y, heightM);
    const total = Math.sqrt(Bounds.rangeVariance(model, slant, nearest.syncS));
    const noise = Math.sqrt(Bounds.rangeVariance({ ...model, processingErrorS: 0 }, slant, 0));
    byId("n-link").textContent = `${metres(slant)} ± ${metres(total)}`;
    byId("verdict").textContent = verdict(bound, noise, total);
  }

  function verdict(bound, noise, total) {
    const tdoa = state.family === "tdoa", least = tdoa ? 3 : 2;
    if (!Number.isFinite(bound)) {
      return state.aps < least
        ? `Not determined: ${state.aps} APs leave a whole curve of positions. ${state.family.toUpperCase()} on the `
          + `ground needs ${least}.`
        : "Not determined here: seen from this place, all APs lie in one line.";
    }
    const rest = Math.sqrt(Math.max(0, total ** 2 - noise ** 2)), metres = Drawing.metres;
    const cause = rest > noise ? "Better clocks would help more than bandwidth or power."
      : "Bandwidth or power would help more than better clocks.";
    const mirror = state.layout === "line" || state.aps === 2
      ? " All APs are in one line: the mirror image of every position fits as well." : "";
    return `The best unbiased estimator is off by ${metres(bound)} (RMS) here. On the nearest link noise costs ${metres(noise)} `
      + `and clocks ${metres(rest)}. ${cause}${mirror}`;
  }

  function moveUser(x, y) {
    const clamp = (v) => Math.min(SIDE, Math.max(0, v));
    state.user = { x: clamp(x), y: clamp(y) };
    refresh(false);
  }

  /** Position on the ground under a pointer event, and its distance from the user in pixels. */
  function under(event) {
    const area = map.querySelector(".nsewdrag").getBoundingClientRect();
    const x = ((event.clientX - area.left) / area.width) * SIDE, y = ((area.bottom - event.clientY) / area.height) * SIDE;
    return { x, y, inside: x >= 0 && x <= SIDE && y >= 0 && y <= SIDE,
      pixels: Math.hypot(x - state.user.x, y - state.user.y) * (area.width / SIDE) };
  }

  function connectPointer() {
    let held = false;
    map.addEventListener("pointerdown", (event) => {
      const at = under(event);
      // A finger elsewhere than on the cross scrolls the page; a tap is a click and moves the user below.
      held = at.inside && (event.pointerType === "mouse" || at.pixels < GRAB_PX);
      if (held) moveUser(at.x, at.y);
    }, true);
    window.addEventListener("pointermove", (event) => {
      if (!held) return;
      const at = under(event);
      moveUser(at.x, at.y);
    });
    for (const name of ["pointerup", "pointercancel"]) window.addEventListener(name, () => { held = false; });
    map.addEventListener("touchstart", (event) => {
      if (event.touches.length === 1 && under(event.touches[0]).pixels < GRAB_PX) event.preventDefault();
    }, { passive: false, capture: true });
    map.addEventListener("click", (event) => {
      const at = under(event);
      if (at.inside) moveUser(at.x, at.y);
    }, true);
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    map.addEventListener("keydown", (event) => {
      if (!(event.key in steps)) return;
      event.preventDefault();
      const [dx, dy] = steps[event.key], size = event.shiftKey ? 1 : 5;
      moveUser(state.user.x + size * dx, state.user.y + size * dy);
    });
  }

  function connectControls() {
    for (const [name, preset] of Object.entries(SETTINGS.sync)) byId("sync").add(new Option(preset.label, name));
    for (const id of ["ux", "uy"]) byId(id).max = SIDE;
    const number = (id, take) => {
      byId(id).addEventListener("input", () => { take(Number(byId(id).value)); refresh(true); });
    };
    number("aps", (v) => { state.aps = v; });
    number("height", (v) => { state.height = v; });
    number("bandwidth", (v) => { state.bandwidthMhz = BANDWIDTHS_MHZ[v]; });
    number("snr", (v) => { state.snrDb = v; });
    for (const id of ["ux", "uy"]) {
      byId(id).addEventListener("input", () => moveUser(Number(byId("ux").value), Number(byId("uy").value)));
    }
    for (const id of ["layout", "sync"]) {
      byId(id).addEventListener("change", () => { state[id] = byId(id).value; refresh(true); });
    }
    byId("reference").addEventListener("change", () => {
      state.reference = byId("reference").value === "" ? null : Number(byId("reference").value);
      refresh(true);
    });
    for (const id of ["pathloss", "fit"]) {
      byId(id).addEventListener("change", () => { state[id] = byId(id).checked; refresh(true); });
    }
    for (const radio of document.querySelectorAll("input[name=family]")) {
      radio.addEventListener("change", () => { state.family = radio.value; refresh(true); });
    }
    byId("shuffle").addEventListener("click", () => { state.seed += 1; refresh(true); });
  }

  function fillControls() {
    byId("bandwidth").max = BANDWIDTHS_MHZ.length - 1;
    byId("bandwidth").value = BANDWIDTHS_MHZ.indexOf(state.bandwidthMhz);
    byId("aps").value = state.aps;
    byId("height").value = state.height;
    byId("snr").value = state.snrDb;
    byId("layout").value = state.layout;
    byId("sync").value = state.sync;
    byId("pathloss").checked = state.pathloss;
    byId("fit").checked = state.fit;
    document.querySelector(`input[name=family][value=${state.family}]`).checked = true;
    byId("side-m").textContent = byId("side-m2").textContent = String(SIDE);
    byId("ref-m").textContent = String(SETTINGS.referenceDistanceM);
    byId("proc-ns").textContent = String(SETTINGS.processingErrorS * 1e9);
  }

  connectControls();
  fillControls();
  connectPointer();
  render(true);
  window.addEventListener("resize", () => refresh(true));
})();
