// server.js [processes] - an HTTP server that says hello, on node's http; with more than one process, on cluster.
const http = require('http');
const cluster = require('cluster');

const processes = Number(process.argv[2] || 1);
const headers = { 'Content-Type': 'text/plain' };

function serve(told) {
  const server = http.createServer((request, response) => {
    response.writeHead(200, headers);
    response.end('hello world\n');
  });
  server.listen(0, '127.0.0.1', 4096, () => told(server.address().port));
}

if (processes > 1 && cluster.isPrimary) {
  let ports = 0;
  for (let i = 0; i < processes; i++) {
    cluster.fork().on('message', (port) => {
      if (++ports === processes) console.log(port);
    });
  }
} else {
  serve((port) => (process.send ? process.send(port) : console.log(port)));
}
