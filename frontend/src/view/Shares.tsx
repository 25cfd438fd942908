/** How the values of a tensor divide into negative, zero, positive and non-finite ones, as a bar. */

import { formatShare } from "../model/format";
import type { ValueShares } from "../model/layers";

const PARTS = [
  { key: "negative", text: "negative" },
  { key: "zero", text: "zero" },
  { key: "mixed", text: "either sign" },
  { key: "positive", text: "positive" },
  { key: "nonfinite", text: "NaN or Inf" },
] as const;

export function Shares({ shares }: { shares: ValueShares }) {
  const text = PARTS.filter(({ key }) => shares[key] > 0)
    .map((part) => `${formatShare(shares[part.key])} ${part.text}`)
    .join(", ");
  return (
    <span class="shares" role="img" aria-label={text} title={text}>
      {PARTS.map(({ key }) => shares[key] > 0 && <i key={key} class={key} style={{ flexGrow: shares[key] }} />)}
    </span>
  );
}

export function SharesKey() {
  return (
    <p class="shares-key">
      {PARTS.map(({ key, text }) => (
        <span key={key}>
          <i class={key} /> {text}
        </span>
      ))}
    </p>
  );
}
