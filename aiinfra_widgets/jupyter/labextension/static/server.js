// Asking the server extension: JupyterLab's own connection brings the login and the token against forged requests.

export function server(ServerConnection, URLExt) {
  const settings = ServerConnection.makeSettings();
  return async (path, body) => {
    const url = URLExt.join(settings.baseUrl, "aiinfra", path);
    const request = body === undefined ? { cache: "no-store" } : { method: "POST", body: JSON.stringify(body) };
    const reply = await ServerConnection.makeRequest(url, request, settings);
    const text = await reply.text();
    let data = {};
    try { data = JSON.parse(text); } catch { /* a page of some proxy: the status says what there is to say */ }
    if (!reply.ok) throw new Error(data.message || `${reply.status} ${reply.statusText}`);
    return data;
  };
}

// A function that says a text in the reader's language, from the table that the server keeps; {name} stands for a value.
export function speaker(words) {
  return (text, values = {}) => (words[text] ?? text).replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}
