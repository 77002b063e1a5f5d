/* Pages that also change without an event of a study: heartbeats, devices, time that passes. */

import { refresh } from "./refresh.js";

const EVERY_MS = 10000;

setInterval(() => document.hidden || refresh(), EVERY_MS);
