-- A connection of asynctask.ssl that was closed while another task shook hands: that task got the cancellation
-- of the handshake, which nobody had aimed at it, raised. And bytes that a `send` was asked for beyond the data
-- made the counts of a socket no numbers.

local task = require "asynctask"
local socket = require "asynctask.socket"
local await = task.await

local function connected()
  local listening = assert(socket.bind("127.0.0.1", 0))
  local _, port = listening:getsockname()
  local client = assert(socket.connect("127.0.0.1", port))
  local server = assert(listening:accept())
  listening:close()
  return client, server
end

describe("asynctask.socket", function()
  it("ssl: a handshake whose connection is closed says so", function()
    local has_tls, ssl = pcall(require, "asynctask.ssl")
    if not has_tls then
      pending(tostring(ssl))
      return
    end
    local client, server = connected()
    local connection = assert(ssl.wrap(client, { mode = "client", protocol = "any", verify = "none" }))
    local t = task.spawn(function() return connection:dohandshake() end)
    assert(server:receive(1)) -- the greeting: it is under way
    connection:close()
    assert.same({ false, "closed" }, { await(t) })
    server:close()
  end)

  it("send: counts what was sent, whatever the indexes", function()
    local client, server = connected()
    client:send("hello", 0 / 0)
    client:send("hello", math.huge)
    client:send("hello", 2)
    local _, sent = client:getstats()
    assert.equal(4, sent)
    client:close()
    server:close()
  end)
end)
