/** A table in a box of its own that scrolls, by pointer and by key. */

import type { ComponentChildren } from "preact";

export interface ScrollTableProps {
  readonly label: string;
  readonly room: number;
  readonly rowCount: number;
  readonly onScroll?: (top: number) => void;
  readonly children: ComponentChildren;
}

export function ScrollTable({ label, room, rowCount, onScroll, children }: ScrollTableProps) {
  return (
    <section
      class="cells"
      aria-label={label}
      // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by key
      tabIndex={0}
      style={{ maxHeight: `${room}px` }}
      onScroll={(event) => onScroll?.(event.currentTarget.scrollTop)}
    >
      <table aria-rowcount={rowCount + 1}>{children}</table>
    </section>
  );
}
