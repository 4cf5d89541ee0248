/** Formats numbers for people. */

/**
 * Formats a value with three significant digits, two below a thousandth, and a power of ten for
 * very small and very large ones.
 * @param {number} value
 * @returns {string}
 */
export function number(value) {
  if (!Number.isFinite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-5 || size >= 1e5) {
    const [mantissa, exponent] = value.toExponential(1).split("e");
    return `${minus(mantissa)}e${minus(String(Number(exponent)))}`;
  }
  const digits = (size < 1e-3 ? 1 : 2) - Math.floor(Math.log10(size));
  return minus(value.toFixed(Math.max(digits, 0)));
}

/**
 * Formats a percentile with at most one decimal: 90, 97.5.
 * @param {number} value
 * @returns {string}
 */
export function percentile(value) {
  return String(Math.round(value * 10) / 10);
}

/**
 * Rounds a value to significant digits that a widget keeps, so that writing it back
 * changes nothing.
 * @param {number} value
 * @param {number} digits
 * @returns {number}
 */
export function tidy(value, digits = 4) {
  return Number(value.toPrecision(digits));
}

function minus(text) {
  return text.replace("-", "−");
}
