// server.js - an echo server on node.
const server = require("net").createServer({ noDelay: true }, (socket) => {
  socket.on("error", () => {});
  socket.on("data", (data) => socket.write(data));
});
server.listen({ host: "127.0.0.1", port: 0, backlog: 1024 }, () => console.log(server.address().port));
