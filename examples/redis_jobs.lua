-- redis_jobs.lua [port] - a queue of jobs in Redis, with lua-redis as it is installed: workers that block in BLPOP, a
-- producer, and a ticker beside them, all on one thread. Without a port it starts a redis-server of its own.

local task    = require "asynctask"
local fs      = require "asynctask.fs"
local process = require "asynctask.process"
local socket  = require "asynctask.socket"

local await = task.await

local WORKERS, JOBS = 5, 20

-- From here on `require "socket"` means asynctask's.
socket.install()

-- lua-redis is packaged for Lua 5.1 to 5.3, and runs under 5.4 as it is.
local function load_redis()
  local found, redis = pcall(require, "redis")
  if found then
    return redis
  end
  local file = package.searchpath("redis", (package.path:gsub("/lua/5%.4/", "/lua/5.1/")))
  return file and dofile(file)
end

-- A server of our own, on a Unix socket in a temporary directory: what to connect to, and a value to close.
local function start_server()
  local dir = await(fs.mkdtemp())
  local path = dir .. "/redis.sock"
  local server = await(process.spawn("redis-server", { "--port", "0", "--unixsocket", path, "--save", "",
    "--dir", dir }, { stdout = "ignore", stderr = "ignore", stdin = "ignore" }))
  while not await(fs.exists(path)) do
    await(task.delay(0.01))
  end
  return { scheme = "unix", path = path }, setmetatable({}, { __close = function()
    await(server:close())
    await(fs.remove(dir, { recursive = true }))
  end })
end

local function work(connect, name, report)
  local client = connect()
  while true do
    local _, job = table.unpack(client:blpop("jobs", 0)) -- blocks this task, nobody else
    if job == "stop" then
      break
    end
    await(task.delay(0.02)) -- the work
    report(name, job)
  end
  client:quit()
end

task.main(function()
  local redis = load_redis()
  local _, _, missing = await(process.run("sh", { "-c", "command -v redis-server" }))
  if not redis or missing ~= 0 and not arg[1] then
    print("this needs lua-redis and redis-server: apt-get install lua-redis redis-server")
    return
  end
  local where, server = { host = "127.0.0.1", port = tonumber(arg[1]) }, nil
  if not arg[1] then
    where, server = start_server()
  end
  local _ <close> = server
  local function connect()
    return redis.connect(where)
  end

  local done, by = 0, {}
  local ticks = 0
  local ticker = task.spawn(function()
    for _ in task.every(0.01) do
      ticks = ticks + 1
    end
  end)
  task.with_group(function(g)
    for i = 1, WORKERS do
      g:spawn(work, connect, "worker " .. i, function(name)
        done = done + 1
        by[name] = (by[name] or 0) + 1
      end)
    end
    local producer = connect()
    for i = 1, JOBS do
      producer:rpush("jobs", "job " .. i)
    end
    for _ = 1, WORKERS do
      producer:rpush("jobs", "stop")
    end
    producer:quit()
  end)
  ticker:cancel()

  local busy = 0
  for _ in pairs(by) do
    busy = busy + 1
  end
  print(("%d jobs done by %d workers on one thread"):format(done, busy))
  print(ticks > 0 and "the ticker went on meanwhile" or "the ticker stood still")
end)
