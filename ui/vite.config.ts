import { defineConfig } from "vite";

// React and the router are Airflow's own, from its globals, so that there is one of each in the browser.
const globals = {
  react: "React",
  "react/jsx-runtime": "ReactJSXRuntime",
  "react-router-dom": "ReactRouterDOM",
};

export default defineConfig({
  build: {
    outDir: "../plugins/backfill/ui",
    emptyOutDir: false,
    target: "es2022",
    sourcemap: false,
    lib: { entry: "src/main.tsx", formats: ["iife"], name: "ScorecardBackfillPage", fileName: () => "backfill.js" },
    rollupOptions: { external: Object.keys(globals), output: { globals } },
  },
});
