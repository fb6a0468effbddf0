-- http_hello.lua [port] - the smallest web server: says hello until Ctrl-C. Port 0 lets the system choose (8080).
--
--     lua5.4 examples/http_hello.lua & curl http://127.0.0.1:8080/you

local task = require "asynctask"
local net = require "asynctask.net"
local http = require "asynctask.http"

local await = task.await

task.main(function(port)
  local server <close> = await(net.listen("127.0.0.1", port))
  print(("http://127.0.0.1:%d/"):format(server:sockname().port))
  io.stdout:flush()
  await(http.serve(server, function(req)
    return 200, { ["content-type"] = "text/plain; charset=utf-8" }, ("hello %s\n"):format(req.path:sub(2))
  end))
end, tonumber(arg[1]) or 8080)
