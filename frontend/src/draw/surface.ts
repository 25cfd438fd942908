/** A canvas at the resolution of the screen: sizes in CSS pixels in, sharp lines out. */

export interface Surface {
  readonly context: CanvasRenderingContext2D;
  readonly width: number;
  readonly height: number;
  /** Device pixels per CSS pixel. */
  readonly ratio: number;
}

export const FONT = '12px Roboto, system-ui, "DejaVu Sans", sans-serif';

/** Fits `canvas` to its size in CSS pixels and returns it cleared; null where it cannot be drawn on. */
export function prepare(canvas: HTMLCanvasElement, width: number, height: number): Surface | null {
  const context = canvas.getContext("2d");
  if (context === null || width <= 0 || height <= 0) return null;
  const ratio = window.devicePixelRatio || 1;
  const [pixelsAcross, pixelsDown] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixelsAcross) canvas.width = pixelsAcross;
  if (canvas.height !== pixelsDown) canvas.height = pixelsDown;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  context.font = FONT;
  return { context, width, height, ratio };
}
