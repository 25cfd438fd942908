/** A picture across the time of one step: holds the canvas, follows the pointer, zooms by a drag. */

import { useEffect, useRef, useState } from "preact/hooks";
import { prepare, type Surface } from "../draw/surface";
import { formatDuration } from "../model/format";
import { chooseSpan } from "../model/store";
import { draggedTimes, type Span, spanFacts, spanName, type TimeView, type Trace, xOfTime } from "../model/trace";
import type { Theme } from "../theme/theme";
import { type Pointer, Tooltip } from "./Tooltip";
import { useSize, useViewer } from "./viewer";

export interface TimePictureProps {
  readonly label: string;
  readonly trace: Trace;
  readonly height: number;
  /** Room left of the plot. */
  readonly left: number;
  /** Of `height`, what of it fits in; where the picture is higher, it scrolls. */
  readonly room: number;
  readonly spanUnder: (view: TimeView, pointer: Pointer) => Span | null;
  readonly draw: (surface: Surface, view: TimeView, hovered: Span | null, theme: Theme) => void;
}

export function TimePicture(props: TimePictureProps) {
  const { store, theme } = useViewer();
  const { ref, width } = useSize<HTMLDivElement>();
  const canvas = useRef<HTMLCanvasElement>(null);
  const [pointer, setPointer] = useState<Pointer | null>(null);
  const [scrolled, setScrolled] = useState(0);
  const [dragFrom, setDragFrom] = useState<number | null>(null);
  const style = theme.value;
  const { trace, height, left } = props;
  const zoom = store.timeZoom.value;
  const view: TimeView = { left, width, from: zoom?.from ?? 0, to: zoom?.to ?? trace.end };
  const hovered = pointer && dragFrom === null ? props.spanUnder(view, pointer) : null;
  const dragging = dragFrom !== null && pointer !== null ? draggedTimes(view, dragFrom, pointer.x) : null;

  useEffect(() => {
    const surface = canvas.current && prepare(canvas.current, width, height);
    if (!surface) return;
    props.draw(surface, view, hovered, style);
    if (dragging) {
      surface.context.globalAlpha = 0.25;
      surface.context.fillStyle = style.info;
      const from = xOfTime(view, dragging.from);
      surface.context.fillRect(from, 0, xOfTime(view, dragging.to) - from, height);
      surface.context.globalAlpha = 1;
    }
  });

  const place = (event: PointerEvent): Pointer => ({ x: event.offsetX, y: event.offsetY });
  const onUp = (event: PointerEvent) => {
    const at = place(event);
    const range = dragFrom === null ? null : draggedTimes(view, dragFrom, at.x);
    const span = props.spanUnder(view, at);
    setDragFrom(null);
    if (range) store.timeZoom.value = range;
    else if (span) chooseSpan(store, span);
  };
  return (
    <div class="timepicture">
      <div
        ref={ref}
        class="scroller"
        // biome-ignore lint/a11y/noNoninteractiveTabindex: what scrolls must be reachable by key
        tabIndex={0}
        style={{ height: `${Math.min(height, props.room)}px` }}
        onScroll={(event) => setScrolled(event.currentTarget.scrollTop)}
      >
        <canvas
          ref={canvas}
          role="img"
          aria-label={props.label}
          style={{ width: `${width}px`, height: `${height}px` }}
          onPointerMove={(event) => setPointer(place(event))}
          onPointerLeave={() => setPointer(null)}
          onPointerDown={(event) => {
            if (event.button !== 0 || event.offsetX < left) return;
            event.currentTarget.setPointerCapture(event.pointerId);
            setDragFrom(event.offsetX);
          }}
          onPointerUp={onUp}
          onPointerCancel={() => setDragFrom(null)}
          onDblClick={() => {
            store.timeZoom.value = null;
          }}
        />
      </div>
      {hovered && pointer && (
        <Tooltip
          at={{ x: pointer.x, y: pointer.y - scrolled }}
          width={width}
          lines={[
            spanName(hovered, store.layers.value),
            ...spanFacts(trace, hovered, store.layers.value).map(({ name, value }) => `${name} ${value}`),
          ]}
        />
      )}
    </div>
  );
}

/** Shows all of the step again, where only a part of it is shown; else how to see a part. */
export function TimePictureCaption() {
  const { store } = useViewer();
  const zoom = store.timeZoom.value;
  return (
    <p class="caption">
      {zoom ? (
        <>
          {formatDuration(zoom.from)} to {formatDuration(zoom.to)}.{" "}
          <button
            type="button"
            class="link"
            onClick={() => {
              store.timeZoom.value = null;
            }}
          >
            Show the whole step <kbd>Esc</kbd>
          </button>
        </>
      ) : (
        <>
          Drag or <kbd>+</kbd> to zoom, click or <kbd>,</kbd> <kbd>.</kbd> to choose a span.
        </>
      )}
    </p>
  );
}
