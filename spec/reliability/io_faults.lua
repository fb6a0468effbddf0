-- io_faults.lua LIBRARY [most [pattern]] - every system call fails once: runs scenarios in which the n-th call of a
-- kind fails with each plausible error, moves one byte, or is interrupted, n = 1, 2, ... until it no longer happens (or
-- `most` is reached); then the same with every later call, too. LIBRARY is spec/support/faultio.c, compiled and
-- preloaded. `make io-faults`.
--
-- After each run: the scenario has succeeded with what it promises, or raised an error object (or a Lua error that
-- names the fault); nothing is left alive, no descriptor is left open, and the same scenario passes untouched. What was
-- reported as written is read back.

local task = require "asynctask"
local core = require "asynctask.core"
local fs = require "asynctask.fs"
local net = require "asynctask.net"
local process = require "asynctask.process"

local fault = assert(package.loadlib(arg[1], "luaopen_faultio"))()
local MOST, PATTERN = tonumber(arg[2]) or 200, arg[3] or ""

local await, try = task.await, task.try

local E = { EINTR = 4, EIO = 5, EBADF = 9, EAGAIN = 11, ENOMEM = 12, EACCES = 13, ENFILE = 23, EMFILE = 24, ENOSPC = 28,
  EPIPE = 32, ENOSYS = 38, ECONNABORTED = 103, ECONNRESET = 104, ENOBUFS = 105, ETIMEDOUT = 110, ECONNREFUSED = 111 }

-- What each call may say. "short": moves one byte.
local FAULTS = {
  read = { "EINTR", "EIO", "short" }, pread = { "EINTR", "EIO", "short" },
  preadv2 = { "EINTR", "EAGAIN", "EIO", "ENOSYS", "short" },
  write = { "EINTR", "EIO", "ENOSPC", "EPIPE", "short" }, pwrite = { "EINTR", "EIO", "ENOSPC", "short" },
  pwritev = { "EINTR", "EIO", "ENOSPC", "short" }, readv = { "EINTR", "EIO" }, writev = { "EINTR", "EIO", "short" },
  recv = { "EINTR", "EAGAIN", "ECONNRESET", "ENOMEM", "short" }, recvmsg = { "EINTR", "EAGAIN", "ECONNRESET" },
  send = { "EINTR", "EAGAIN", "ECONNRESET", "EPIPE", "ENOBUFS", "short" },
  sendmsg = { "EINTR", "EAGAIN", "ECONNRESET", "EPIPE", "ENOBUFS" },
  sendto = { "EINTR", "EAGAIN", "ENOBUFS" }, recvfrom = { "EINTR", "EAGAIN", "ECONNREFUSED" },
  open = { "EINTR", "EMFILE", "ENFILE", "EACCES" }, openat = { "EINTR", "EMFILE", "EACCES" },
  openat2 = { "EAGAIN", "ENOSYS", "EMFILE" }, socket = { "EMFILE", "ENOBUFS", "EACCES" },
  socketpair = { "EMFILE" }, pipe2 = { "EMFILE" }, bind = { "EACCES", "ENOMEM" }, listen = { "EACCES" },
  accept4 = { "EINTR", "EMFILE", "ECONNABORTED", "EAGAIN" }, connect = { "EINTR", "ECONNREFUSED", "ETIMEDOUT" },
  getsockopt = { "ENOMEM" }, setsockopt = { "ENOMEM" }, getsockname = { "ENOBUFS" }, fcntl = { "EINTR", "EMFILE" },
  fstat = { "EIO" }, lstat = { "EACCES" }, stat = { "EACCES" }, statx = { "EIO", "ENOSYS" }, fstatat = { "EACCES" },
  fsync = { "EINTR", "EIO" }, fdatasync = { "EIO" }, ftruncate = { "EIO", "EINTR" }, rename = { "EACCES" },
  link = { "EACCES" }, unlink = { "EACCES" }, unlinkat = { "EACCES" }, rmdir = { "EACCES" },
  mkdir = { "EACCES", "ENOSPC" }, mkdtemp = { "EACCES" }, mkostemp = { "EACCES" },
  opendir = { "EMFILE" }, fdopendir = { "ENOMEM" },
  copy_file_range = { "EINTR", "EIO", "ENOSYS", "short" }, sendfile = { "EINTR", "EIO", "short" },
  fchmod = { "EACCES" },
  utimensat = { "EACCES" }, dup = { "EMFILE" }, pthread_create = { "EAGAIN" }, mmap = { "ENOMEM" },
  inotify_init1 = { "EMFILE" }, inotify_add_watch = { "ENOSPC" },
}

-- libuv 1.44 loses its epoll descriptor when uv_loop_init fails half-way, which is how a worker's start fails.
local EXCEPT = { jobs = { pipe2 = true } }

-- ---- scenarios: each leaves the directory as it found it -------------------------------------

local dir = await(fs.mkdtemp())
local text = ("0123456789abcdef"):rep(2000)

local function read_back(path)
  local f = assert(io.open(path, "rb"))
  local data = f:read("a")
  f:close()
  return data
end

local scenarios = {}

function scenarios.whole_files()
  local path = dir .. "/whole"
  await(fs.write_file(path, text))
  assert(read_back(path) == text, "what was reported as written is not there")
  await(fs.append_file(path, "more"))
  assert(read_back(path) == text .. "more")
  assert(await(fs.read_file(path)) == text .. "more", "what was read is not what is there")
end

function scenarios.atomic()
  local path = dir .. "/atomic"
  local f = assert(io.open(path, "wb"))
  f:write "old"
  f:close()
  local ok, err = try(fs.write_file(path, text, { atomic = true }))
  local now = read_back(path)
  assert(now == "old" or now == text, "an atomic write left something else")
  assert(err or ok ~= nil or now == text)
  if err then
    error(err, 0)
  end
  assert(now == text)
end

function scenarios.open_files()
  local path = dir .. "/open"
  local f <close> = await(fs.open(path, "w+"))
  await(f:write(text, "line\n"))
  await(f:sync())
  await(f:seek("set", 0))
  assert(await(f:read(#text)) == text)
  assert(await(f:read "l") == "line")
  await(f:truncate(10))
  assert(await(f:stat()).size == 10)
end

function scenarios.lines_and_copies()
  local path = dir .. "/lines"
  await(fs.write_file(path, ("a line\n"):rep(3000)))
  local n = 0
  for line in fs.lines(path) do
    assert(line == "a line")
    n = n + 1
  end
  assert(n == 3000, "lines were lost")
  await(fs.copy(path, path .. ".copy"))
  assert(read_back(path .. ".copy") == ("a line\n"):rep(3000), "a copy reported as made is not one")
  await(fs.remove(path .. ".copy"))
end

function scenarios.trees()
  local top = dir .. "/tree"
  await(fs.mkdir(top .. "/a/b", { parents = true }))
  await(fs.write_file(top .. "/a/b/c", "c"))
  local n = 0
  for _, entry in fs.walk(top) do
    if entry.error then
      error(entry.error, 0)
    end
    n = n + 1
  end
  assert(n == 3, "an entry was lost")
  assert(#await(fs.glob(top .. "/**/c")) <= 1) -- as in a shell: what cannot be looked at is not there
  await(fs.remove(top, { recursive = true }))
  assert(not await(fs.exists(top)))
end

function scenarios.sockets()
  local server <close> = await(net.listen("127.0.0.1", 0))
  local address, err = server:sockname()
  if not address then
    error(err, 0)
  end
  local serving = server:serve(function(s)
    for line in s:lines() do
      await(s:write(line, "\n"))
    end
  end, { on_error = function() end })
  local s <close> = await(net.connect("127.0.0.1", address.port, { timeout = 2 }))
  for _, sent in ipairs { "hello", text } do
    await(s:write(sent, "\n"))
    local got = await(s:read "l")
    if got == nil then -- the server's side failed, and closed
      error(task.error { code = "EOF", op = "read" }, 0)
    end
    assert(got == sent, "bytes were lost")
  end
  await(s:close())
  await(server:close())
  try(serving)
end

function scenarios.pairs_of_streams()
  local one, other = await(net.pair())
  local a <close> = one
  local b <close> = other
  task.with_group(function(g)
    g:spawn(function()
      await(a:write(text:rep(10)))
      await(a:shutdown())
    end)
    assert(await(b:read "a") == text:rep(10), "bytes were lost")
  end)
end

function scenarios.datagrams()
  local a <close> = await(net.udp("127.0.0.1", 0))
  local b <close> = await(net.udp("127.0.0.1", 0))
  for _ = 1, 3 do -- a datagram may be lost: that is no fault of ours
    local address, err = b:sockname()
    if not address then
      error(err, 0)
    end
    await(a:send("ping", "127.0.0.1", address.port))
  end
  local data = task.with_timeout(2, function() return b:receive() end)
  assert(data == "ping")
end

function scenarios.processes()
  assert(await(process.run("cat", {}, { input = text, timeout = 5, check = true })) == text, "bytes were lost")
end

function scenarios.jobs()
  local pool = task.pool { threads = 2 }
  local ok, err = pcall(function()
    assert(await(pool:run(function(s) return #s end, text)) == #text)
    local list = await(task.when_all { pool:run(function() return 1 end), pool:run(function() return 2 end) })
    assert(list[1] + list[2] == 3)
  end)
  await(pool:close())
  if not ok then
    error(err, 0)
  end
end

function scenarios.names()
  assert(#await(net.resolve("localhost")) > 0)
end

function scenarios.watching()
  local w <close> = fs.watch(dir)
  await(fs.write_file(dir .. "/watched", "x"))
  task.with_timeout(2, function() return w:next() end)
end

-- A server's side that failed has closed: what its peer sees then.
local function no_answer(op)
  error(task.error { code = "EOF", op = op }, 0)
end

-- LuaSocket's functions return what others raise, as a word or as the system's text.
local function returned(value, message)
  if value == nil then
    error(task.error { code = "ESOCKET", message = message, op = "socket" }, 0)
  end
  return value
end

function scenarios.luasocket()
  local socket = require "asynctask.socket"
  local server = returned(socket.bind("127.0.0.1", 0))
  local _ <close> = setmetatable({}, { __close = function() server:close() end })
  local host, port = server:getsockname()
  returned(host, port)
  server:settimeout(2)
  local serving <const> = task.spawn(function()
    local s = server:accept()
    if s then
      s:settimeout(2)
      local line = s:receive()
      if line then
        s:send(line .. "\n")
      end
      s:close()
    end
  end)
  local s = socket.tcp()
  local _ <close> = setmetatable({}, { __close = function()
    s:close()
    serving:cancel()
    try(serving)
  end })
  s:settimeout(2)
  returned(s:connect("127.0.0.1", port))
  returned(s:send(text .. "\n"))
  assert(returned(s:receive()) == text, "bytes were lost")
end

if pcall(require, "asynctask.tls") then
  local tls = require "asynctask.tls"
  local file = require("spec.support.certificates").make()
  local context = await(tls.context { ca = file "ca.pem", sessions = false })
  local handler = await(tls.handler(function(s)
    for line in s:lines() do
      await(s:write(line, "\n"))
    end
  end, { cert = file "server.pem", key = file "server.key" }))

  function scenarios.tls()
    local server <close> = await(net.listen("127.0.0.1", 0))
    local address, err = server:sockname()
    if not address then
      error(err, 0)
    end
    local serving = server:serve(handler, { on_error = function() end })
    local s <close> = await(tls.connect("127.0.0.1", address.port, { context = context }))
    await(s:write(text, "\n"))
    local got = await(s:read "l")
    if got == nil then
      no_answer "read"
    end
    assert(got == text, "bytes were lost")
    await(s:close())
    await(server:close())
    try(serving)
  end
end

local has_http, http = pcall(require, "asynctask.http")
has_http = has_http and pcall(require, "asynctask.http1")

if has_http then
  -- Calls `visit(url, port)` while a handler answers with what it was sent.
  local function served(visit)
    local server <close> = await(net.listen("127.0.0.1", 0))
    local address, err = server:sockname()
    if not address then
      error(err, 0)
    end
    local serving = http.serve(server, function(req)
      return 200, nil, await(req:text())
    end, { on_error = function() end, head_timeout = 3, idle_timeout = 3, body_timeout = 3, write_timeout = 3 })
    local ok, problem = pcall(visit, ("http://127.0.0.1:%d/"):format(address.port), address.port)
    await(server:close())
    try(serving)
    if not ok then
      error(problem, 0)
    end
  end

  function scenarios.http_server()
    served(function(_, port)
      local s <close> = await(net.connect("127.0.0.1", port, { timeout = 2 }))
      for _, last in ipairs { false, true } do
        await(s:write(("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%s\r\n"):format(#text,
          last and "Connection: close\r\n" or ""), text))
        local head = await(s:read_until "\r\n\r\n")
        if not head or not head:find "^HTTP/1.1 200 " then -- 408, 500: the server's side failed, and says so
          no_answer "head"
        end
        local body = await(s:read(#text))
        if not body or #body < #text then
          no_answer "body"
        end
        assert(body == text, "bytes were lost")
      end
    end)
  end

  if pcall(require, "asynctask.curl") then
    function scenarios.http_client()
      local client <close> = http.client {}
      served(function(url)
        for _ = 1, 2 do
          local reply = await(client:post(url, { body = text, timeout = 3 }))
          local body = await(reply:text())
          if reply.status ~= 200 then
            no_answer "status"
          end
          assert(body == text, "bytes were lost")
        end
      end)
    end
  end
end

-- ---- running ---------------------------------------------------------------------------------

local function descriptors()
  local n = 0
  for _ in fs.dir("/proc/self/fd") do
    n = n + 1
  end
  return n
end

-- What is alive besides what idle pools keep.
local function settle()
  for _ = 1, 3 do
    collectgarbage()
    await(task.delay(0))
  end
end

local function check_clean(what, before)
  settle()
  local now = descriptors()
  for _ = 1, 200 do -- what a thread of the pool is about to close
    if now <= before then
      break
    end
    await(task.delay(0.005))
    collectgarbage()
    now = descriptors()
  end
  assert(now <= before, ("%s: %d descriptors are open, %d were"):format(what, now, before))
  for _, t in ipairs(task.tasks()) do
    error(("%s: a task is left: %s"):format(what, tostring(t.name or t.task)))
  end
end

-- An outcome is a success or an error that says what failed.
local TRY_AGAIN = { EINTR = true, EAGAIN = true, ENOBUFS = true } -- said for ever, these are no faults

local function acceptable(err)
  if type(err) == "table" and type(err.code) == "string" then
    return true
  end
  return type(err) == "string" and (err:find "cannot start" or err:find "not enough memory" or err:find "memory")
end

local runs, faults = 0, 0

local function run(name, scenario, kind, error_name, n, sticky)
  local what = ("%s, %s %s at %d%s"):format(name, kind, error_name, n, sticky and " and later" or "")
  fault.arm(kind, n, E[error_name] or error_name, sticky)
  local ok, err = pcall(function()
    await(task.spawn(function() task.with_timeout(10, scenario) end))
  end)
  local fired = fault.disarm()
  runs = runs + 1
  if not fired then
    assert(ok, ("%s: failed although nothing was made to: %s"):format(what, tostring(err)))
    return false
  end
  faults = faults + 1
  if not ok and not acceptable(err) then
    error(("%s: %s"):format(what, tostring(err)), 0)
  end
  if type(err) == "table" and err.op == "timeout" then
    error(what .. ": hung", 0)
  end
  return true, what
end

task.on_unobserved(function() end) -- what a server's client tasks end with is theirs
local order = {}
for name in pairs(scenarios) do
  if name:find(PATTERN) then
    order[#order + 1] = name
  end
end
table.sort(order)
for _, name in ipairs(order) do
  local scenario, began, count = scenarios[name], core.now(), faults
  for _ = 1, 2 do
    await(task.spawn(scenario)) -- untouched: pools are there now
  end
  settle()
  local before = descriptors()
  local function each_n(kind, error_name, sticky)
    for n = 1, MOST do
      local fired, what = run(name, scenario, kind, error_name, n, sticky)
      if not fired then
        return
      end
      check_clean(what, before)
      await(task.spawn(scenario)) -- the same, untouched, in the same state
    end
  end
  for kind, errors in pairs(FAULTS) do
    for _, error_name in ipairs(EXCEPT[name] and EXCEPT[name][kind] and {} or errors) do
      each_n(kind, error_name, false)
      if not TRY_AGAIN[error_name] and kind ~= "accept4" then -- a server that cannot accept waits until it can
        each_n(kind, error_name, true)
      end
    end
  end
  print(("%-20s %6d faults, %.1f s"):format(name, faults - count, core.now() - began))
end
await(fs.remove(dir, { recursive = true }))
print(("%d faults in %d runs"):format(faults, runs))
