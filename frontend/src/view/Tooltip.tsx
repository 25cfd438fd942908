/** What stands beside the pointer. */

export interface Pointer {
  readonly x: number;
  readonly y: number;
}

export interface TooltipProps {
  readonly at: Pointer;
  /** The width of what it stands in. */
  readonly width: number;
  readonly lines: readonly string[];
}

export function Tooltip({ at, width, lines }: TooltipProps) {
  const onLeft = at.x > width / 2;
  return (
    <div
      class="tooltip"
      style={{
        top: `${at.y + 16}px`,
        ...(onLeft ? { right: `${width - at.x + 12}px` } : { left: `${at.x + 12}px` }),
      }}
    >
      {lines.map((line, i) => (
        <div key={line} class={i === 0 ? "strong" : ""}>
          {line}
        </div>
      ))}
    </div>
  );
}
