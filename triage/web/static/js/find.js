/* The page that finds studies: moments in the reader's time zone; it does not follow changes. */

import "./page.js";

document.getElementById("live").hidden = true;
