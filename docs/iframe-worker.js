// Search runs in a Worker, and browsers start none on a page that is opened from disk; there its script runs in a hidden frame.
// The `offline` plugin would load such a stand-in from a server, unless one of this name is among the polyfills.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.ready = new Promise((resolve) => (frame.onload = resolve));
      frame.contentDocument.open();
      this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      frame.contentDocument.write(`<script src="${new URL(url, location)}"></script>`);
      frame.contentDocument.close();
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
