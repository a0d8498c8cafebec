/** What was asked in this tab, newest first; gone when the tab is. */

const STORE = "ragengine-history-1"; // the number changes with the layout of an entry
const MOST = 20;

export class History {
  entries = read();

  add(entry) {
    this.entries = [entry, ...this.entries].slice(0, MOST);
    this.#write();
  }

  clear() {
    this.entries = [];
    this.#write();
  }

  /** As many of the newest as the browser has room for. */
  #write() {
    for (let count = this.entries.length; count >= 0; count -= 1) {
      try {
        sessionStorage.setItem(STORE, JSON.stringify(this.entries.slice(0, count)));
        return;
      } catch { /* too much, or storage is off */ }
    }
  }
}

function read() {
  try {
    return JSON.parse(sessionStorage.getItem(STORE)) ?? [];
  } catch {
    return [];
  }
}
