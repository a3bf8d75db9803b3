/* Bounds and curves of time-based positioning, in the browser: the same equations as cfpos_envs/physics/toa/ and
   scripts/plots/curves.py, checked against them by tests/scripts/test_explorer.py. Metres, seconds, hertz; no state.

   A link is described by `model`: family ("toa", "tdoa", "rtt"), rmsBandwidthHz, snrReference (linear, at
   referenceDistanceM), slopeDb (dB per decade, 0: equal SNR), processingErrorS. An AP is {x, y, syncS}; `network` puts
   the two together. */
"use strict";

const Bounds = (() => {
  const C = 299792458;
  const SMALLEST_RANGE_M = 1e-6; // a link shorter than this has no direction
  const SINGULAR = 1e-14; // a normalised determinant below this is rounding
  const CHI2_95 = -2 * Math.log(0.05); // 95 % point of chi-square with two degrees of freedom

  /** RMS bandwidth of a flat comb of S tones that fill a bandwidth: B / S sqrt((S^2 - 1) / 12), Hz. */
  function rmsBandwidthHz(bandwidthHz, spacingHz) {
    const tones = Math.max(2, Math.round(bandwidthHz / spacingHz));
    return (bandwidthHz / tones) * Math.sqrt((tones * tones - 1) / 12);
  }

  /** SNR of the whole pilot, linear; the path loss ends at 1 m. */
  function snr(model, slantM) {
    return model.snrReference * Math.pow(Math.max(slantM, 1) / model.referenceDistanceM, -model.slopeDb / 10);
  }

  /** Variance of a delay estimate: 1 / (8 pi^2 beta_rms^2 SNR), s^2. */
  function delayVariance(model, slantM) {
    return 1 / (8 * Math.PI ** 2 * model.rmsBandwidthHz ** 2 * snr(model, slantM));
  }

  /** Variance of a range, m^2: noise of one pass (RTT: two, halved), clock error of the AP, processing error (RTT). */
  function rangeVariance(model, slantM, syncS) {
    const delay = delayVariance(model, slantM);
    if (model.family === "rtt") {
      return (C * C / 4) * (2 * delay + syncS ** 2 + model.processingErrorS ** 2);
    }
    return C * C * (delay + syncS ** 2);
  }

  /** Clock errors after a calibration burst from a node at a known place: the noise of that burst, seconds. */
  function calibrated(model, aps, heightM, node) {
    return aps.map((ap) => ({
      ...ap, syncS: Math.sqrt(delayVariance(model, Math.hypot(node.x - ap.x, node.y - ap.y, heightM))),
    }));
  }

  /** A model with its APs at a height over the user, prepared for many points: the variance of a range is
      scale * slant^exponent + fixed, as in timing_maps.py. */
  function network(model, aps, heightM) {
    const floor = { ...model, processingErrorS: 0 };
    return {
      model, aps, heightM,
      x: Float64Array.from(aps, (ap) => ap.x), y: Float64Array.from(aps, (ap) => ap.y),
      scale: rangeVariance(floor, 1, 0), exponent: model.slopeDb / 10,
      fixed: Float64Array.from(aps, (ap) => rangeVariance({ ...model, snrReference: Infinity }, 1, ap.syncS)),
      ux: new Float64Array(aps.length), uy: new Float64Array(aps.length), w: new Float64Array(aps.length),
    };
  }

  /** Fisher information {a, b, d} = [[a, b], [b, d]] at a point, 1/m^2; `unit`: every range has 1 m (for the GDOP). */
  function fisher(net, x, y, unit = false) {
    const { ux, uy, w, fixed, scale, exponent } = net, n = w.length, height2 = net.heightM ** 2;
    let total = 0, mx = 0, my = 0;
    for (let m = 0; m < n; m++) {
      const dx = x - net.x[m], dy = y - net.y[m], square = dx * dx + dy * dy + height2, slant = Math.sqrt(square);
      const near = slant <= SMALLEST_RANGE_M;
      ux[m] = near ? 0 : dx / slant;
      uy[m] = near ? 0 : dy / slant;
      w[m] = unit ? 1 : 1 / (scale * (square > 1 ? Math.pow(square, exponent / 2) : 1) + fixed[m]);
      total += w[m];
      mx += w[m] * ux[m];
      my += w[m] * uy[m];
    }
    // An unknown clock offset leaves the scatter around the weighted mean (Schur complement).
    if (net.model.family === "tdoa" && total > 0) { mx /= total; my /= total; } else { mx = 0; my = 0; }
    let a = 0, b = 0, d = 0;
    for (let m = 0; m < n; m++) {
      const vx = ux[m] - mx, vy = uy[m] - my;
      a += w[m] * vx * vx;
      b += w[m] * vx * vy;
      d += w[m] * vy * vy;
    }
    return { a, b, d };
  }

  /** Position error bound sqrt(tr J^-1) = sqrt(tr J / det J), metres; Infinity where undetermined. */
  function peb({ a, b, d }) {
    const trace = a + d;
    const determinant = (a / trace) * (d / trace) - (b / trace) ** 2;
    return determinant > SINGULAR ? Math.sqrt(1 / (determinant * trace)) : Infinity;
  }

  /** Bound over a square: rows of y, each over x, n points per side with the borders. */
  function pebMap(net, sideM, n) {
    const axis = Array.from({ length: n }, (_, i) => (sideM * i) / (n - 1));
    return { axis, values: axis.map((y) => axis.map((x) => peb(fisher(net, x, y)))) };
  }

  /** Geometric dilution of precision: the bound if every range were good to 1 m. */
  function gdop(net, x, y) {
    return peb(fisher(net, x, y, true));
  }

  /** Half axes (long, short) of one standard deviation and the direction of the long one, or null. */
  function ellipse(J) {
    if (!Number.isFinite(peb(J))) return null;
    const mean = (J.a + J.d) / 2, gap = Math.hypot((J.a - J.d) / 2, J.b);
    // The small eigenvalue as determinant over large one: no cancellation for long ellipses.
    const large = mean + gap, small = (J.a * J.d - J.b * J.b) / large;
    const angle = 0.5 * Math.atan2(2 * J.b, J.a - J.d) + Math.PI / 2; // across the best known direction
    return { long: 1 / Math.sqrt(small), short: 1 / Math.sqrt(large), angle };
  }

  /** Outline of the 95 % ellipse around a point, enlarged by a factor. */
  function ellipsePoints(J, x, y, enlarged = 1, count = 97) {
    const shape = ellipse(J);
    if (shape === null) return { x: [], y: [] };
    const scale = enlarged * Math.sqrt(CHI2_95), c = Math.cos(shape.angle), s = Math.sin(shape.angle);
    const out = { x: [], y: [] };
    for (let i = 0; i < count; i++) {
      const t = (2 * Math.PI * i) / (count - 1);
      const along = scale * shape.long * Math.cos(t), across = scale * shape.short * Math.sin(t);
      out.x.push(x + c * along - s * across);
      out.y.push(y + s * along + c * across);
    }
    return out;
  }

  /** |p - other| - |p - reference|: c times the time difference, metres. */
  function rangeDifference(point, reference, other, heightM) {
    return Math.hypot(point.x - other.x, point.y - other.y, heightM)
      - Math.hypot(point.x - reference.x, point.y - reference.y, heightM);
  }

  /** Points of equal time difference: the hyperbola x = a' cosh t, y = b' sinh t between the two APs, where a plane
      below them cuts the hyperboloid. Up to a reach from the middle of the APs, or only the part around the point
      `near`. Empty where the curve stays out of reach or the APs stand at one place. */
  function hyperbolaPoints(reference, other, differenceM, heightM, reachM, near = null, count = 201) {
    const out = { x: [], y: [] };
    const gx = other.x - reference.x, gy = other.y - reference.y, distance = Math.hypot(gx, gy);
    const f = distance / 2, a = Math.abs(differenceM) / 2, b2 = (f - a) * (f + a);
    if (distance === 0 || b2 < 0 || (b2 === 0 && heightM !== 0)) return out;
    const stretch = b2 > 0 ? Math.sqrt(1 + heightM ** 2 / b2) : 1;
    const halfX = a * stretch, halfY = Math.sqrt(b2) * stretch;
    const cx = (reference.x + other.x) / 2, cy = (reference.y + other.y) / 2, side = differenceM < 0 ? 1 : -1;
    let from, to;
    if (near !== null && halfY > 0) {
      const at = (gx * (near.y - cy) - gy * (near.x - cx)) / distance;
      [from, to] = [Math.asinh((at - reachM) / halfY), Math.asinh((at + reachM) / halfY)];
    } else {
      if (halfX > reachM) return out;
      to = Math.min(
        halfY > 0 ? Math.asinh(reachM / halfY) : Infinity, halfX > 0 ? Math.acosh(reachM / halfX) : Infinity);
      from = -to;
    }
    for (let i = 0; i < count; i++) {
      const t = from + ((to - from) * i) / (count - 1);
      const x = side * halfX * Math.cosh(t), y = halfY * Math.sinh(t);
      out.x.push(cx + (gx * x - gy * y) / distance);
      out.y.push(cy + (gy * x + gx * y) / distance);
    }
    return out;
  }

  /** Points at a slant range from an AP: a circle on the ground, or only its part within a reach of the point `near`.
      Empty where the range is shorter than the height. */
  function circlePoints(ap, rangeM, heightM, reachM = Infinity, near = null, count = 181) {
    const out = { x: [], y: [] }, square = rangeM ** 2 - heightM ** 2;
    if (square < 0) return out;
    const radius = Math.sqrt(square);
    const middle = near === null ? 0 : Math.atan2(near.y - ap.y, near.x - ap.x);
    const half = near === null || radius === 0 ? Math.PI : Math.min(Math.PI, reachM / radius);
    for (let i = 0; i < count; i++) {
      const t = middle + half * ((2 * i) / (count - 1) - 1);
      out.x.push(ap.x + radius * Math.cos(t));
      out.y.push(ap.y + radius * Math.sin(t));
    }
    return out;
  }

  return {
    C, rmsBandwidthHz, rangeVariance, calibrated, network, fisher, peb, pebMap, gdop, ellipse, ellipsePoints,
    rangeDifference, hyperbolaPoints, circlePoints,
  };
})();
