-- check.lua - argument checks of asynctask.net, beside those of asynctask.check, which it has too.

local general = require "asynctask.check"

local check = setmetatable({}, { __index = general })

local bad, expect, type_name = general.bad, general.expect, general.type_name

-- ---- predicates --------------------------------------------------------------------------------

function check.backlog(v)
  return math.type(v) == "integer" and v > 0 and v <= 65535, "integer between 1 and 65535"
end

function check.port(v)
  return math.type(v) == "integer" and v >= 0 and v <= 65535, "integer between 0 and 65535"
end

function check.family(v)
  return v == "ipv4" or v == "ipv6" or v == "any", '"ipv4", "ipv6" or "any"'
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
