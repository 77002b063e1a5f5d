/* Pages that are shown anew in place when anything changed: operations, read studies. */

import { calmly, followChanges } from "./live.js";
import { handleReading, learnServerTime, replaceParts } from "./page.js";

export const refresh = calmly(async () => {
  const response = await fetch(location.href, { headers: { Accept: "text/html", "X-Triage-Request": "background" } });
  if (response.redirected) return location.reload(); // the session is over: to the log-in page
  if (!response.ok) return;
  learnServerTime(response);
  replaceParts(new DOMParser().parseFromString(await response.text(), "text/html"));
}, 400);

followChanges(refresh);
handleReading(refresh);
