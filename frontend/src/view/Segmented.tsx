/** A choice of one among a few. */

export interface SegmentedProps<T extends string> {
  readonly label: string;
  readonly options: ReadonlyArray<{ readonly value: T; readonly text: string; readonly disabled?: boolean }>;
  readonly chosen: T;
  readonly onChoose: (value: T) => void;
}

export function Segmented<T extends string>({ label, options, chosen, onChoose }: SegmentedProps<T>) {
  return (
    <div class="segmented" role="radiogroup" aria-label={label}>
      {options.map(({ value, text, disabled }) => (
        // biome-ignore lint/a11y/useSemanticElements: a native radio cannot hold its own label's look
        <button
          key={value}
          type="button"
          role="radio"
          aria-checked={value === chosen}
          disabled={disabled}
          title={disabled ? "not recorded in this run" : undefined}
          onClick={() => onChoose(value)}
        >
          {text}
        </button>
      ))}
    </div>
  );
}

/** Shows the numbers behind the pictures, or the pictures again. */
export function TableToggle({ shown, onToggle }: { shown: boolean; onToggle: () => void }) {
  return (
    <button type="button" class="toggle" aria-pressed={shown} onClick={onToggle}>
      table <kbd>t</kbd>
    </button>
  );
}
