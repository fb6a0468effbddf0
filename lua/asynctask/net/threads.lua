-- threads.lua - one server on several threads. Each thread is a runtime of its own with a listening socket
-- of its own on the same port (SO_REUSEPORT), or, where that cannot be had, with a copy of the one
-- descriptor. The thread that called `serve` keeps a line (a pair of streams) to each of them, over which
-- it says how to close; descriptors travel as deposits (csrc/io/deposit.c).

local core = require "asynctask.core"

local await, start, try = core.await, core.start, core.try
local socket = core.net

local threads = {}

-- server -> the options with which others may listen on its port beside it
local options_of = setmetatable({}, { __mode = "k" })

---@param server asynctask.Server
---@param opts table
function threads.shareable(server, opts)
  options_of[server] = opts
end

-- ---- on the threads ----------------------------------------------------------------------------

local function find_handler(handler)
  if type(handler) ~= "string" then
    return handler
  end
  local module, name = handler:match("^(.*)%.([^.]+)$")
  return require(module)[name]
end

-- The line ends, or says for how long handlers may go on.
local function obey(server, line)
  local grace = try(line:read("n"))
  await(server:close { grace = grace or 0 })
end

---The body of each thread: serves until the line says otherwise.
---@param listening integer token of the listening socket
---@param line integer token of the stream to the thread that called `serve`
---@param handler function|string
---@param opts { max?: integer, on_error?: function, on_close?: function }
function threads.run(listening, line, handler, opts)
  require "asynctask.net"
  local server <close> = await(socket.collect(listening))
  local orders <close> = await(socket.collect(line))
  local serving = server:serve(find_handler(handler), opts)
  local obeying = start(obey, server, orders)
  await(serving)
  obeying:cancel()
end

-- ---- on the thread that called serve -----------------------------------------------------------

---@class asynctask.net.Crew
---@field server asynctask.Server
---@field handler function|string
---@field opts table
---@field jobs asynctask.Task[]
---@field lines asynctask.Stream[]
---@field deposits table[]
---@field others asynctask.Server[] on the same port
local Crew = {}

local crew_meta = { __index = Crew }

---@param server asynctask.Server
---@param handler function|string
---@param opts { threads: integer, max?: integer, on_error?: function, on_close?: function }
---@return asynctask.net.Crew
function threads.crew(server, handler, opts)
  return setmetatable({
    server = server, handler = handler, opts = opts, jobs = {}, lines = {}, deposits = {}, others = {},
  }, crew_meta)
end

-- A listening socket for the i-th thread: the server itself, one beside it, or the server again.
local function socket_for(crew, i)
  local opts, name = options_of[crew.server], crew.server:sockname()
  if i == 1 or not opts or not name or not name.port then
    return crew.server
  end
  local other = try(socket.listen(name.host, name.port, opts))
  if other then
    crew.others[#crew.others + 1] = other
  end
  return other or crew.server
end

local function deposit(crew, fd)
  local kept, err = socket.deposit(fd)
  if not kept then
    error(err, 0)
  end
  crew.deposits[#crew.deposits + 1] = kept
  return kept:token()
end

local function begin_one(crew, i)
  local here, there = await(socket.pair())
  local _ <close> = there
  crew.lines[i] = here
  crew.jobs[i] = core.par.thread("asynctask.net.threads.run", deposit(crew, socket_for(crew, i):fd()),
    deposit(crew, there:fd()), crew.handler,
    { max = crew.opts.max, on_error = crew.opts.on_error, on_close = crew.opts.on_close })
end

---Starts the threads.
function Crew:begin()
  for i = 1, self.opts.threads do
    begin_one(self, i)
  end
end

---Waits until all threads have ended; raises the first fault of one.
function Crew:wait()
  local each = core.each(self.jobs)
  while true do
    local t = await(each:next())
    if not t then
      return
    end
    await(t)
  end
end

---Closes gently: the threads stop accepting and give their handlers `grace` seconds. Waits.
---@param grace number seconds
function Crew:finish(grace)
  local word = grace == math.huge and "1e300\n" or ("%.6f\n"):format(grace)
  for _, server in ipairs(self.others) do
    server:stop()
  end
  for _, line in ipairs(self.lines) do
    try(line:write(word))
  end
  for _, job in ipairs(self.jobs) do
    core.wait(job)
  end
end

-- Whatever ended serving: the threads end, and nothing that was on its way to them is left.
function crew_meta.__close(crew)
  for _, job in ipairs(crew.jobs) do
    job:cancel("server closed")
    job:error() -- the first fault is the one that is raised
  end
  for _, list in ipairs { crew.deposits, crew.lines } do
    for _, thing in ipairs(list) do
      thing:close()
    end
  end
  for _, server in ipairs(crew.others) do
    server:stop()
  end
end

return threads
