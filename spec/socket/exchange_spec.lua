-- Compares asynctask.socket with LuaSocket, value for value, on the exchanges of exchange.lua: ours inside a task and
-- on the main chunk, LuaSocket's in a process of its own (it would ignore SIGPIPE in this one).

local task = require "asynctask"
local socket = require "asynctask.socket"
local child = require "spec.support.child"
local exchange = require "spec.socket.exchange"
local sandbox = require "spec.support.sandbox"

local await = task.await

local path, _, _, before, after = sandbox.new()

local function directory()
  return path("."):sub(1, -3)
end

local wanted -- number of a case -> LuaSocket's results as text

-- Runs all cases with LuaSocket, once.
local function results_of_luasocket()
  local output, code = child.lua([[
    local exchange = require "spec.socket.exchange"
    local found, socket = pcall(require, "socket")
    if not found then os.exit(3) end
    for i, case in ipairs(exchange.cases) do
      print(i, exchange.text(exchange.run(case, socket, require "socket.unix", arg[1])))
    end
  ]], { args = { directory() } })
  local results = {}
  for line in output:gmatch("[^\n]+") do
    local i, text = line:match("^(%d+)\t(.*)$")
    results[tonumber(i) or line] = text
  end
  assert(code == 0 and #results == #exchange.cases or code == 3, output)
  return code == 0 and results or {}
end

describe("asynctask.socket gives what LuaSocket gives:", function()
  before_each(before)
  after_each(after)

  for i, case in ipairs(exchange.cases) do
    it(case.name, function()
      wanted = wanted or results_of_luasocket()
      if not wanted[i] then
        pending("LuaSocket is not installed")
        return
      end
      assert.matches("^{1=true", wanted[i]) -- the case itself has not failed
      assert.are.equal(wanted[i], exchange.text(exchange.run(case, socket, socket.unix, directory())))
      local t = task.spawn(exchange.run, case, socket, socket.unix, directory())
      assert.are.equal(wanted[i], exchange.text(await(t)))
    end)
  end
end)
