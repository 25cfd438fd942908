import { defineConfig } from "vite";

// One ES module beside which everything it imports lies: TensorBoard loads `index.js` by a relative URL, under any
// path prefix. An application build, not a library build, which comes out larger.
export default defineConfig({
  base: "./",
  build: {
    emptyOutDir: true,
    modulePreload: false,
    outDir: "../tensorboard_plugin_neuraldbg/static",
    target: "es2022",
    rolldownOptions: {
      input: "src/index.tsx",
      preserveEntrySignatures: "strict",
      output: {
        entryFileNames: "index.js",
        chunkFileNames: "[name]-[hash].js",
        assetFileNames: "[name]-[hash][extname]",
      },
    },
  },
});
