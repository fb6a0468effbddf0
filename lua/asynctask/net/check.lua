-- check.lua - argument checks of asynctask.net: each raises at whoever called the library, as Lua's own
-- functions do (S22).

local check = {}

-- "@.../asynctask/net/": what begins so, and net.lua beside it, is the library.
local here = (debug.getinfo(1, "S").source:match("^(.*[/\\])check%.lua$")) or "@asynctask/net/"
local facade = here:sub(1, -2) .. ".lua"

---Raises the message at the first function on the stack that is not of asynctask.net.
---@param message string
function check.raise(message)
  local level = 2
  local info = debug.getinfo(level, "S")
  while info and (info.source == facade or info.source:sub(1, #here) == here) do
    level = level + 1
    info = debug.getinfo(level, "S")
  end
  error(message, level)
end

local raise = check.raise

local function type_name(v)
  local mt = getmetatable(v)
  return type(mt) == "table" and type(mt.__name) == "string" and mt.__name or type(v)
end

---@param arg integer
---@param name string
---@param message string
function check.bad(arg, name, message)
  raise(("bad argument #%d to '%s' (%s)"):format(arg, name, message))
end

local bad = check.bad

---@param ok any
---@param arg integer
---@param name string
---@param wanted string
---@param v any
function check.expect(ok, arg, name, wanted, v)
  if not ok then
    bad(arg, name, ("%s expected, got %s"):format(wanted, type_name(v)))
  end
end

local expect = check.expect

---Checks a table of options; returns it, or an empty one.
---@param opts any
---@param arg integer
---@param name string
---@param known table<string, fun(v: any): boolean, string> a predicate for each option, which also says
---  what it wants
---@return table
function check.options(opts, arg, name, known)
  if opts == nil then
    return {}
  end
  expect(type(opts) == "table", arg, name, "table of options", opts)
  for key, value in pairs(opts) do
    local wanted = known[key]
    if not wanted then
      bad(arg, name, ("unknown option '%s'"):format(tostring(key)))
    end
    local fits, what = wanted(value)
    if not fits then
      bad(arg, name, ("option '%s': %s expected, got %s"):format(key, what,
        type(value) == "number" and tostring(value) or type_name(value)))
    end
  end
  return opts
end

-- ---- predicates --------------------------------------------------------------------------------

function check.seconds(v)
  return type(v) == "number" and v >= 0, "seconds"
end

function check.boolean(v)
  return type(v) == "boolean", "boolean"
end

function check.string(v)
  return type(v) == "string", "string"
end

function check.positive(v)
  return math.type(v) == "integer" and v > 0, "positive integer"
end

function check.backlog(v)
  return math.type(v) == "integer" and v > 0 and v <= 65535, "integer between 1 and 65535"
end

function check.port(v)
  return math.type(v) == "integer" and v >= 0 and v <= 65535, "integer between 0 and 65535"
end

function check.family(v)
  return v == "ipv4" or v == "ipv6" or v == "any", '"ipv4", "ipv6" or "any"'
end

function check.callable(v)
  if type(v) == "function" then
    return true, "function"
  end
  local mt = getmetatable(v)
  return type(mt) == "table" and mt.__call ~= nil, "function"
end

-- ---- addresses ---------------------------------------------------------------------------------

---@param host any
---@param arg integer
---@param name string
function check.host(host, arg, name)
  expect(type(host) == "string", arg, name, "string", host)
  if host == "" or host:find("\0", 1, true) then
    bad(arg, name, host == "" and "host is empty" or "host contains a zero byte")
  end
end

local function check_path(path, arg, name)
  if type(path) ~= "string" then
    bad(arg, name, ("host, or a table with a path expected, got a table with a path that is %s")
      :format(path == nil and "nil" or type_name(path)))
  end
  if path == "" then
    bad(arg, name, "path is empty")
  end
  if path:byte(1) ~= 0 and path:find("\0", 1, true) then
    bad(arg, name, "path contains a zero byte")
  end
  if #path > 107 then
    bad(arg, name, "path is too long")
  end
end

---Checks `host, port` or `{path=}` from argument `arg` on.
---@param name string
---@param arg integer
---@param host any
---@param port any
---@return integer n how many arguments that were
function check.address(name, arg, host, port)
  if type(host) == "table" then
    check_path(host.path, arg, name)
    return 1
  end
  check.host(host, arg, name)
  expect(math.tointeger(port) and type(port) == "number", arg + 1, name, "port number", port)
  if port < 0 or port > 65535 then
    bad(arg + 1, name, ("port %d is not between 0 and 65535"):format(port))
  end
  return 2
end

return check
