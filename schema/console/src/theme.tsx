/** How the editors look; everything else is in style.css. GraphiQL names the two themes, we say what they look like. */

import { pick, useGraphiQL, useMonaco } from "@graphiql/react";
import { useEffect } from "react";

const ACCENT = { light: "#0b6b63", dark: "#5fd0c2" };
const SURFACE = { light: "#ffffff", dark: "#1b2226" };
const FONT_SIZE_PX = 13;
const CLEAR = "#00000000";

function colours(scheme: "light" | "dark"): Record<string, string> {
  const accent = ACCENT[scheme];
  const tint = `${accent}22`;
  return {
    "editor.background": CLEAR,
    "scrollbar.shadow": CLEAR,
    focusBorder: accent,
    "textLink.foreground": accent,
    "textLink.activeForeground": accent,
    "editorLink.activeForeground": accent,
    "editorWidget.background": SURFACE[scheme],
    "editorHoverWidget.background": SURFACE[scheme],
    "editorSuggestWidget.background": SURFACE[scheme],
    "editorSuggestWidget.selectedBackground": tint,
    "editorSuggestWidget.selectedForeground": accent,
    "editorSuggestWidget.highlightForeground": accent,
    "list.hoverBackground": tint,
    "list.highlightForeground": accent,
    "menu.background": SURFACE[scheme],
    "menu.selectionBackground": tint,
    "menu.selectionForeground": accent,
    "quickInput.background": SURFACE[scheme],
    "quickInputList.focusBackground": tint,
  };
}

export function EditorLooks() {
  const monaco = useMonaco(({ monaco }) => monaco);
  const editors = useGraphiQL(pick("queryEditor", "variableEditor", "headerEditor", "responseEditor"));
  useEffect(() => {
    for (const editor of Object.values(editors)) editor?.updateOptions({ fontSize: FONT_SIZE_PX, wordWrap: "on" });
  }, [editors]);
  useEffect(() => {
    monaco?.editor.defineTheme("graphiql-LIGHT", { base: "vs", inherit: true, colors: colours("light"), rules: [] });
    monaco?.editor.defineTheme("graphiql-DARK", { base: "vs-dark", inherit: true, colors: colours("dark"), rules: [] });
  }, [monaco]);
  return null;
}
