/** A choice of one among a few. */

export interface SegmentedProps<T extends string> {
  readonly label: string;
  readonly options: ReadonlyArray<{ readonly value: T; readonly text: string; readonly disabled?: boolean }>;
  readonly chosen: T;
  readonly onChoose: (value: T) => void;
}

export function Segmented<T extends string>({ label, options, chosen, onChoose }: SegmentedProps<T>) {
  return (
    <fieldset class="segmented" aria-label={label}>
      {options.map(({ value, text, disabled }) => (
        <button
          key={value}
          type="button"
          aria-pressed={value === chosen}
          disabled={disabled}
          title={disabled ? "not recorded in this run" : undefined}
          onClick={() => onChoose(value)}
        >
          {text}
        </button>
      ))}
    </fieldset>
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
