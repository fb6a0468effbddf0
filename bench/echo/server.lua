-- server.lua - the echo server of asynctask that bench/echo measures: straightforward code.

local task = require "asynctask"
local net = require "asynctask.net"

local await = task.await

local function echo(stream)
  while true do
    local data = await(stream:read_some())
    if not data then
      return
    end
    await(stream:write(data))
  end
end

local server = await(net.listen("127.0.0.1", 0, { backlog = 1024 }))
print(server:sockname().port)
io.stdout:flush()
await(server:serve(echo, { on_error = function() end }))
