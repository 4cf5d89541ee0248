/** Numbers as people read them. */

/** Three significant digits, two below a thousandth, a power of ten where zeros fill the line. */
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

/** A percentile with the decimals it needs: 90, 97.5. */
export function percentile(value) {
  return String(Math.round(value * 10) / 10);
}

/** A value rounded to digits that a widget keeps, so that nothing changes by writing it back. */
export function tidy(value, digits = 4) {
  return Number(value.toPrecision(digits));
}

function minus(text) {
  return text.replace("-", "−");
}
