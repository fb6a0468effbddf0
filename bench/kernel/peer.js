// node at the measurements of bench/kernel.lua. Prints lines `name nanoseconds` (CPU time for one), `sleepers` in
// seconds, `bytes` in bytes of RSS.
const fs = require('fs');
const cpu = () => { const u = process.cpuUsage(); return (u.user + u.system) * 1e3; };
const rss = () => Number(fs.readFileSync('/proc/self/statm', 'latin1').split(' ')[1]) * 4096;
const trivial = async () => {};
const measures = {
  async spawn(n) { for (let i = 0; i < n; i++) await trivial(); },
  async switch(n) {
    const half = async () => { for (let i = 0; i < n / 2; i++) await null; };
    await Promise.all([half(), half()]);
  },
  async zero(n) { for (let i = 0; i < n; i++) await new Promise(r => setImmediate(r)); },
};
(async () => {
  const n = 1000000;
  for (const name of Object.keys(measures)) {
    const count = name === 'zero' ? n / 10 : n;
    await measures[name](count / 10);
    const began = cpu();
    await measures[name](count);
    console.log(name, (cpu() - began) / count);
  }
  const before = rss(), began = cpu(), list = [];
  for (let i = 0; i < 100000; i++) list.push((async () => { await new Promise(r => setTimeout(r, 1000)); })());
  console.log('bytes', (rss() - before) / 100000);
  await Promise.all(list);
  console.log('sleepers', (cpu() - began) / 1e9);
})();
