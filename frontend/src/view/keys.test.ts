import { describe, expect, it } from "vitest";
import { createStore } from "../model/store";
import { BINDINGS, isTyping, pressKey } from "./keys";

const key = (name: string) => ({ key: name, ctrlKey: false, metaKey: false, altKey: false });

describe("keys", () => {
  it("stand for one thing each", () => {
    const keys = BINDINGS.flatMap((binding) => binding.keys);
    expect(new Set(keys).size).toBe(keys.length);
  });

  it("change the view, the picture and the table behind it", () => {
    const store = createStore({ view: null, run: null, row: null, step: null });
    expect(pressKey(store, key("3"))).toBe(true);
    expect(store.view.value).toBe("gradients");
    pressKey(store, key("m"));
    expect(store.gradientKind.value).toBe("activation_gradients");
    pressKey(store, key("M"));
    expect(store.gradientKind.value).toBe("gradients");
    pressKey(store, key("t"));
    expect(store.asTable.value).toBe(true);
    pressKey(store, key("?"));
    expect(store.keysShown.value).toBe(true);
    store.zoom.value = { first: 0, last: 5 };
    pressKey(store, key("Escape"));
    expect([store.keysShown.value, store.zoom.value]).toEqual([false, { first: 0, last: 5 }]);
    pressKey(store, key("Escape"));
    expect(store.zoom.value).toBeNull();
  });

  it("sort the table of the view that is shown", () => {
    const store = createStore({ view: "trace", run: null, row: null, step: null });
    pressKey(store, key("S"));
    expect(store.timeSort.value).toEqual({ key: "share", descending: false });
    pressKey(store, key("s"));
    expect(store.timeSort.value).toEqual({ key: "name", descending: false });
    pressKey(store, key("5"));
    pressKey(store, key("s"));
    pressKey(store, key("s"));
    expect(store.memorySort.value).toEqual({ key: "activations", descending: true });
    expect(store.sort.value).toEqual({ key: "order", descending: false });
  });

  it("are left to the browser with a modifier, and where they stand for nothing", () => {
    const store = createStore({ view: null, run: null, row: null, step: null });
    expect(pressKey(store, { ...key("2"), ctrlKey: true })).toBe(false);
    expect(pressKey(store, key("x"))).toBe(false);
    expect(store.view.value).toBe("overview");
  });

  it("belong to a field that has the focus", () => {
    expect(isTyping({ tagName: "INPUT" } as unknown as EventTarget)).toBe(true);
    expect(isTyping({ tagName: "SELECT" } as unknown as EventTarget)).toBe(true);
    expect(isTyping({ tagName: "BUTTON" } as unknown as EventTarget)).toBe(false);
    expect(isTyping(null)).toBe(false);
  });
});
