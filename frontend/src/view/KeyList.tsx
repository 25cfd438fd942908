/** The list of keys, over everything else. */

import { useEffect, useRef } from "preact/hooks";
import { BINDINGS } from "./keys";
import { useViewer } from "./viewer";

export function KeyList() {
  const { store } = useViewer();
  const dialog = useRef<HTMLDialogElement>(null);
  const shown = store.keysShown.value;
  const close = () => {
    store.keysShown.value = false;
  };
  useEffect(() => {
    if (shown) dialog.current?.showModal();
    else dialog.current?.close();
  }, [shown]);
  return (
    <dialog ref={dialog} aria-label="Keys" onClose={close}>
      <h2>Keys</h2>
      <table>
        <tbody>
          {BINDINGS.map(({ shown: key, does }) => (
            <tr key={key}>
              <td>
                <kbd>{key}</kbd>
              </td>
              <td>{does}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <button type="button" class="toggle" onClick={close}>
        close
      </button>
    </dialog>
  );
}
