// node's worker_threads at the measurements of bench/parallel.lua. Prints lines `name seconds`.
const { Worker, isMainThread, parentPort } = require('worker_threads');
if (!isMainThread) { parentPort.on('message', m => parentPort.postMessage(m)); }
else (async () => {
  const workers = [new Worker(__filename), new Worker(__filename)];
  const call = (w, m) => new Promise(r => { w.once('message', r); w.postMessage(m); });
  for (const w of workers) await call(w, 0);
  const time = async (name, f) => { const t = process.hrtime.bigint(); await f();
    console.log(name, Number(process.hrtime.bigint() - t) / 1e9); };
  const text = 'x'.repeat(1 << 20);
  const list = Array.from({ length: 10000 }, (_, i) => ({ id: i, name: 'name ' + i, score: i * 0.5 }));
  await time('one', async () => { for (let i = 0; i < 1000; i++) await call(workers[0], 1); });
  await time('many', async () => { for (let k = 0; k < 20; k++) await new Promise(done => {
    let left = 1000; const on = () => { if (--left === 0) done(); };
    for (const w of workers) { w.removeAllListeners('message'); w.on('message', on); }
    for (let i = 0; i < 1000; i++) workers[i % 2].postMessage(1); });
    for (const w of workers) w.removeAllListeners('message'); });
  await time('string', async () => { for (let i = 0; i < 50; i++) await call(workers[0], text); });
  await time('records', async () => { await call(workers[0], list); });
  process.exit(0);
})();
