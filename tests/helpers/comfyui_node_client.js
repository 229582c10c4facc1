// Drives @stable-canvas/comfyui-client against the server HOST with the graph on stdin, and prints
// what it returned as JSON. The packages are in the folder NODE_PATH.
const { readFileSync } = require("node:fs");
const { Client } = require("@stable-canvas/comfyui-client");
const WebSocket = require("ws");

async function main() {
  const graph = JSON.parse(readFileSync(0, "utf8"));
  const client = new Client({ api_host: process.env.HOST, WebSocket });
  const connected = new Promise((done) => client.on("connected", done));
  client.connect();
  await connected;
  const steps = [];
  const first = await client.enqueue(graph, { progress: ({ value }) => steps.push(value) });
  const again = await client.enqueue(graph);
  const polled = await client.enqueue_polling(graph, { polling_ms: 50 });
  const lists = {
    extensions: await client.getExtensions(),
    embeddings: await client.getEmbeddings(),
    samplers: await client.getSamplers(),
    schedulers: await client.getSchedulers(),
    models: await client.getSDModels(),
    vaes: await client.getVAEs(),
    folders: await client.getModelFolders(),
    files: await client.getModels("checkpoints"),
    users: await client.getUserConfig(),
    settings: await client.getSettings(),
    setting: await client.getSetting("Comfy.Locale"),
    queue: await client.getQueue(),
    stats: await client.getSystemStats(),
  };
  await client.free();
  await client.free({ unload_models: true, free_memory: true });
  await client.interrupt();
  client.close();
  console.log(JSON.stringify({ steps, first, again, polled, lists }));
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
