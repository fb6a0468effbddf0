-- server.lua [threads] - an HTTP server that says hello, on asynctask; prints its port.

local task = require "asynctask"
local http = require "asynctask.http"
local net = require "asynctask.net"

local threads = math.tointeger(arg[1]) or 1
local HEADERS <const> = { ["Content-Type"] = "text/plain" }

task.main(function()
  local server = task.await(net.listen("127.0.0.1", 0, { backlog = 4096, reuseport = threads > 1 }))
  print(server:sockname().port)
  io.stdout:flush()
  task.await(http.serve(server, function()
    return 200, HEADERS, "hello world\n"
  end, { threads = threads > 1 and threads or nil, max_requests = math.maxinteger }))
end)
