/** The pane under the answer while a subscription runs: how the connection stands, and log lines as a terminal shows them. */

import { useLayoutEffect, useRef, useSyncExternalStore } from "react";
import type { LogLine } from "./contract";
import { current, watch, type StreamPhase } from "./stream";

const PHASES: Record<Exclude<StreamPhase, "idle">, string> = {
  connecting: "Connecting…",
  live: "Live",
  reconnecting: "Connection lost, trying again…",
  complete: "Complete",
  stopped: "Stopped",
  failed: "Failed",
};

const FOLLOW_WITHIN_PX = 24;

export function LivePane() {
  const { phase, events, reconnects, lines } = useSyncExternalStore(watch, current);
  const list = useRef<HTMLOListElement>(null);
  const follows = useRef(true);
  // Stay at the end while the reader is there; stay put while they read further up.
  useLayoutEffect(() => {
    if (follows.current && list.current) list.current.scrollTop = list.current.scrollHeight;
  }, [lines]);
  if (phase === "idle") return null;
  const last = lines.at(-1);
  return (
    <section className="live" aria-label="Live stream">
      <header className="live-status" data-phase={phase} role="status">
        <i aria-hidden="true" />
        <b>{PHASES[phase]}</b>
        <span>
          {events} {events === 1 ? "event" : "events"}
        </span>
        {last && <span>last sequence {last.sequence}</span>}
        {reconnects > 0 && <span>reconnected {reconnects}×</span>}
      </header>
      {lines.length > 0 && (
        <ol
          ref={list}
          className="live-lines"
          tabIndex={0}
          aria-label="Log lines"
          onScroll={({ currentTarget: box }) => {
            follows.current = box.scrollHeight - box.scrollTop - box.clientHeight < FOLLOW_WITHIN_PX;
          }}
        >
          {lines.map((line) => (
            <Line key={line.sequence} line={line} />
          ))}
        </ol>
      )}
    </section>
  );
}

function Line({ line: { sequence, timestamp, level, stage, message } }: { line: LogLine }) {
  return (
    <li data-level={level}>
      <span className="live-sequence">{sequence}</span>
      {timestamp && <time dateTime={timestamp}>{timestamp.slice(11, 19)}</time>}
      {level && <span className="live-level">{level}</span>}
      {stage && <span className="live-stage">{stage}</span>}
      <span className="live-message">{message}</span>
    </li>
  );
}
