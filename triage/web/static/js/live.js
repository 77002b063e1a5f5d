/* Live updates: Server-Sent Events while the page is seen, polling where they do not come through.
   A hidden page gives its connection back, because a browser grants a site only six of them. */

const POLL_MS = 5000;
const HIDDEN_POLL_MS = 20000;
const TOO_LONG_MS = 6000;

const WORDS = {
  connecting: "connecting",
  live: "live",
  reconnecting: "reconnecting",
  polling: "updating every few seconds",
};

const listeners = [];

/**
 * Call `onChange({studies, all})` whenever something changed: `studies` maps the UID of each study
 * to the kinds of what happened; `all` says that anything may have changed. All of a page share one
 * connection.
 */
export function followChanges(onChange) {
  listeners.push(onChange);
  if (listeners.length === 1) follow((change) => listeners.forEach((listener) => listener(change)));
}

function follow(onChange) {
  let stream = null;
  let poll = null;
  let lateTimer = null;

  const show = (state) => {
    document.getElementById("live").dataset.state = state;
    document.getElementById("live-text").textContent = WORDS[state];
  };
  const look = () => onChange({ studies: {}, all: true });

  function startPolling(interval) {
    clearInterval(poll);
    poll = setInterval(look, interval);
  }

  function connect() {
    stream?.close();
    stream = new EventSource("/events");
    stream.addEventListener("open", () => {
      clearTimeout(lateTimer);
      clearInterval(poll);
      lateTimer = poll = null;
      show("live");
    });
    stream.addEventListener("changed", (event) => onChange(JSON.parse(event.data)));
    stream.addEventListener("error", () => {
      if (poll === null) show("reconnecting");
      // The browser tries again by itself, except after an answer that was no event stream.
      if (stream.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
      lateTimer ??= setTimeout(() => {
        show("polling");
        startPolling(POLL_MS);
        look();
      }, TOO_LONG_MS);
    });
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      stream?.close();
      startPolling(HIDDEN_POLL_MS);
    } else {
      connect();
    }
  });
  addEventListener("pagehide", () => stream?.close());
  addEventListener("pageshow", (event) => event.persisted && connect());
  connect();
}

/** Return a function that calls `work` soon, never twice at once, and once more if asked meanwhile. */
export function calmly(work, pauseMs = 120) {
  let timer = null;
  let isBusy = false;
  let isWanted = false;
  async function run() {
    timer = null;
    isBusy = true;
    isWanted = false;
    try {
      await work();
    } finally {
      isBusy = false;
      if (isWanted) timer = setTimeout(run, pauseMs);
    }
  }
  return () => {
    if (isBusy) isWanted = true;
    else timer ??= setTimeout(run, pauseMs);
  };
}
