/** The page: GraphiQL with our account pane, live pane, examples and colours, and nothing from another origin. */

import "./workers";
import "@graphiql/react/style.css";
import "@graphiql/plugin-doc-explorer/style.css";
import "@graphiql/plugin-history/style.css";
import "@graphiql/plugin-explorer/style.css";
import "graphiql/graphiql.css";
import "./style.css";

import { explorerPlugin } from "@graphiql/plugin-explorer";
import { GraphiQL, HISTORY_PLUGIN } from "graphiql";
import { createRoot } from "react-dom/client";
import { ACCOUNT_PLUGIN, AccountChip } from "./account";
import { EXAMPLES } from "./examples";
import { fetcher } from "./fetcher";
import { LivePane } from "./live";
import { current } from "./session";
import { storage } from "./storage";
import { EditorLooks } from "./theme";

const PLUGINS = [HISTORY_PLUGIN, explorerPlugin(), ACCOUNT_PLUGIN];
// Without this the variables editor marks every object given for a JSON scalar as wrong.
const ANY_JSON = { JSON: {} };

createRoot(document.getElementById("root")!).render(
  <GraphiQL
    fetcher={fetcher}
    plugins={PLUGINS}
    storage={storage}
    defaultTabs={EXAMPLES}
    defaultEditorToolsVisibility="variables"
    shouldPersistHeaders={false}
    customScalarSchemas={ANY_JSON}
    {...(current().session === null && { visiblePlugin: ACCOUNT_PLUGIN })}
  >
    <GraphiQL.Logo>
      <AccountChip />
    </GraphiQL.Logo>
    <GraphiQL.Footer>
      <LivePane />
    </GraphiQL.Footer>
    <EditorLooks />
  </GraphiQL>,
);
