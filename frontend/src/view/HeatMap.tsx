/** The heat map as a component: holds the canvas, follows pointer and scrolling, shows what is under the pointer. */

import { useEffect, useRef, useState } from "preact/hooks";
import type { StepRange } from "../api/types";
import { AXIS_HEIGHT, drawHeatMap } from "../draw/heatmap";
import { prepare } from "../draw/surface";
import { stepTicks } from "../model/axis";
import { elide } from "../model/format";
import {
  draggedRange,
  type Hit,
  hit,
  labelWidth,
  MOST_LABEL,
  offsetShowing,
  rowHeightFor,
  stepOfX,
  type Viewport,
} from "../model/viewport";
import { type Pointer, Tooltip } from "./Tooltip";
import { useSize, useViewer } from "./viewer";

export interface HeatMapProps {
  readonly label: string;
  readonly names: readonly string[];
  readonly levels: Uint8Array;
  readonly columns: number;
  readonly edges: Float64Array;
  readonly from: number;
  readonly to: number;
  readonly flagged: ReadonlySet<number>;
  readonly selected: number | null;
  readonly cursor: number | null;
  /** Room for all rows in CSS pixels; where they need more, they scroll. */
  readonly room: number;
  readonly rowHeight?: number;
  readonly describe: (hit: Hit) => readonly string[];
  readonly onPick: (row: number, column: number | null) => void;
  readonly onZoom: (range: StepRange | null) => void;
}

export function HeatMap(props: HeatMapProps) {
  const { theme } = useViewer();
  const { ref: frame, width } = useSize<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const scroller = useRef<HTMLDivElement>(null);
  const [offset, setOffset] = useState(0);
  const [pointer, setPointer] = useState<Pointer | null>(null);
  const [dragFrom, setDragFrom] = useState<number | null>(null);

  // Read here, not where it is drawn with: that is what makes a new theme draw anew.
  const style = theme.value;
  const rows = props.names.length;
  const rowHeight = props.rowHeight ?? rowHeightFor(rows, props.room);
  const height = Math.min(rows * rowHeight, props.room);
  const labels = props.names.map((name) => elide(name, MOST_LABEL));
  const view: Viewport = {
    width,
    height,
    left: labelWidth(labels),
    top: 0,
    rowHeight,
    rows,
    offset,
    from: props.from,
    to: props.to,
  };
  const dragging = dragFrom !== null && pointer !== null ? draggedRange(view, dragFrom, pointer.x) : null;
  const under = pointer && hit(view, props.edges, pointer.x, pointer.y);

  useEffect(() => {
    const surface = canvas.current && prepare(canvas.current, width, height + AXIS_HEIGHT);
    if (!surface) return;
    const picture = {
      levels: props.levels,
      columns: props.columns,
      edges: props.edges,
      labels,
      flagged: props.flagged,
      selected: props.selected,
      cursor: props.cursor,
      ticks: stepTicks(view.from, view.to, (width - view.left) / 90),
      drag:
        dragging && dragFrom !== null && pointer
          ? ([stepOfX(view, dragFrom), stepOfX(view, pointer.x)] as const)
          : null,
    };
    drawHeatMap(surface, view, picture, style);
  });

  const { selected } = props;
  useEffect(() => {
    if (scroller.current && selected !== null) scroller.current.scrollTop = offsetShowing(view, selected);
  }, [selected, rowHeight, rows]);

  const place = (event: PointerEvent): Pointer => ({ x: event.offsetX, y: event.offsetY });
  const onUp = (event: PointerEvent) => {
    const at = place(event);
    const range = dragFrom === null ? null : draggedRange(view, dragFrom, at.x);
    const target = hit(view, props.edges, at.x, at.y);
    setDragFrom(null);
    if (range) props.onZoom(range);
    else if (target) props.onPick(target.row, target.column);
  };

  return (
    <div class="heatmap" ref={frame} style={{ height: `${height + AXIS_HEIGHT}px` }}>
      <div
        ref={scroller}
        class="scroller"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by key
        tabIndex={0}
        onScroll={(event) => setOffset(event.currentTarget.scrollTop)}
      >
        <div style={{ height: `${rows * rowHeight + AXIS_HEIGHT}px` }}>
          <canvas
            ref={canvas}
            role="img"
            aria-label={props.label}
            style={{ width: `${width}px`, height: `${height + AXIS_HEIGHT}px` }}
            onPointerMove={(event) => setPointer(place(event))}
            onPointerLeave={() => setPointer(null)}
            onPointerDown={(event) => {
              if (event.button !== 0 || event.offsetX < view.left) return;
              event.currentTarget.setPointerCapture(event.pointerId);
              setDragFrom(event.offsetX);
            }}
            onPointerUp={onUp}
            onPointerCancel={() => setDragFrom(null)}
            onDblClick={() => props.onZoom(null)}
          />
        </div>
      </div>
      {under && pointer && !dragging && <Tooltip at={pointer} width={width} lines={props.describe(under)} />}
    </div>
  );
}
