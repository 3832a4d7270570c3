import { defineConfig } from "vite";

// The page answers at `…/graphql` and its files at `…/graphql/assets/…`. Addresses in the HTML are relative to
// the page, those in scripts to the script, so the whole works below any path prefix of a reverse proxy.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../static",
    emptyOutDir: true,
    target: "es2022",
    sourcemap: false,
    modulePreload: { polyfill: false },
    // Nothing is inlined as data: URIs, so a file is either hashed or the page.
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 5_000,
    reportCompressedSize: false,
    rolldownOptions: {
      // "use client" means nothing here, and a hundred such warnings would hide a real one.
      onwarn: (warning, show) => {
        if (warning.code !== "MODULE_LEVEL_DIRECTIVE") show(warning);
      },
    },
  },
  worker: { format: "es" },
  experimental: {
    renderBuiltUrl: (filename, { hostType }) => (hostType === "html" ? `graphql/${filename}` : { relative: true }),
  },
});
