// fetch.js URL COUNT - COUNT requests with node's fetch (undici), 100 in flight; prints how many a second.
const [url, count] = [process.argv[2], Number(process.argv[3])];

async function run(n) {
  let left = n;
  const one = async () => {
    while (left > 0) {
      left--;
      const text = await (await fetch(url)).text();
      if (text.length === 0) throw new Error('empty');
    }
  };
  await Promise.all(Array.from({ length: 100 }, one));
}

(async () => {
  await run(count / 10);
  const began = process.hrtime.bigint();
  await run(count);
  console.log('rate ' + count / (Number(process.hrtime.bigint() - began) / 1e9));
})();
