-- json_api.lua [port] - a JSON API whose heavy work runs on other cores: while one client waits for a large Fibonacci
-- number, everybody else is answered at once. Needs lua-cjson or dkjson. Serves until Ctrl-C.
--
--     GET  /health          {"status":"ok","running":2}
--     GET  /fib/35          {"n":35,"value":9227465,"seconds":1.2}
--     POST /stats           a list of numbers -> {"count":3,"sum":6,"mean":2}

local task = require "asynctask"
local net = require "asynctask.net"
local http = require "asynctask.http"

local await = task.await
local json = http.json

local function reply(status, value)
  return status, { ["content-type"] = "application/json" }, json.encode(value) .. "\n"
end

-- What the server answers with a status of its own: an error that has one.
local function refuse(status, message)
  error(task.error { code = "EINVAL", status = status, message = message }, 0)
end

-- Slow on purpose. Runs on a thread of the pool, with a copy of its argument.
local function fibonacci(n)
  local function fib(k)
    return k < 2 and k or fib(k - 1) + fib(k - 2)
  end
  local before = os.clock()
  return fib(n), os.clock() - before
end

local running = 0

local function get_fib(req)
  local n = math.tointeger(tonumber(req.params.n))
  if not n or n < 0 or n > 45 then
    refuse(422, "n is a number between 0 and 45")
  end
  running = running + 1
  local _ <close> = setmetatable({}, { __close = function() running = running - 1 end })
  -- If the client goes away, this handler is cancelled, and the job with it.
  local value, seconds = await(task.run(fibonacci, n))
  return reply(200, { n = n, value = value, seconds = seconds })
end

local function post_stats(req)
  local list = await(req:json())
  if type(list) ~= "table" or #list == 0 then
    refuse(422, "a list of numbers expected")
  end
  local sum = 0
  for _, value in ipairs(list) do
    if type(value) ~= "number" then
      refuse(422, "a list of numbers expected")
    end
    sum = sum + value
  end
  return reply(200, { count = #list, sum = sum, mean = sum / #list })
end

-- Around everything: errors that have a status become JSON, too.
local function errors_as_json(_, next)
  local result = table.pack(task.pcall(next))
  if result[1] then
    return table.unpack(result, 2, result.n)
  end
  local err = result[2]
  if type(err) ~= "table" or not err.status then
    error(err, 0) -- a bug: 500, and a report with its traceback
  end
  return reply(err.status, { error = err.message })
end

local router = http.router()
router:use(errors_as_json)
router:get("/health", function() return reply(200, { status = "ok", running = running }) end)
router:get("/fib/:n", get_fib)
router:post("/stats", post_stats)

task.main(function(port)
  local server <close> = await(net.listen("127.0.0.1", port))
  print(("http://127.0.0.1:%d/"):format(server:sockname().port))
  io.stdout:flush()
  await(http.serve(server, router, { max_body = 1024 * 1024 }))
end, tonumber(arg[1]) or 8080)
