// agent.js URL COUNT - COUNT requests with node's http module and a keep-alive agent, 100 in flight; prints how many a
// second.
const http = require('http');
const [url, count] = [process.argv[2], Number(process.argv[3])];
const agent = new http.Agent({ keepAlive: true, maxSockets: 100 });

const get = () => new Promise((resolve, reject) => {
  http.get(url, { agent }, (response) => {
    const parts = [];
    response.on('data', (part) => parts.push(part));
    response.on('end', () => resolve(Buffer.concat(parts).toString()));
  }).on('error', reject);
});

async function run(n) {
  let left = n;
  const one = async () => {
    while (left > 0) {
      left--;
      if ((await get()).length === 0) throw new Error('empty');
    }
  };
  await Promise.all(Array.from({ length: 100 }, one));
}

(async () => {
  await run(count / 10);
  const began = process.hrtime.bigint();
  await run(count);
  console.log('rate ' + count / (Number(process.hrtime.bigint() - began) / 1e9));
  agent.destroy();
})();
