-- check.lua - argument checks of the library's Lua functions: each raises at whoever called the library, as Lua's
-- own functions do (S22).

local check = {}

-- "@.../asynctask/": what begins so is the library.
local here = (debug.getinfo(1, "S").source:match("^(.*[/\\])check%.lua$")) or "@asynctask/"

---Raises the message at the first function on the stack that is not the library's.
---@param message string
function check.raise(message)
  local level = 2
  local info = debug.getinfo(level, "S")
  while info and info.source:sub(1, #here) == here do
    level = level + 1
    info = debug.getinfo(level, "S")
  end
  error(message, level)
end

local raise = check.raise

---The name of a value's class, or its type.
---@param v any
---@return string
function check.type_name(v)
  local mt = getmetatable(v)
  return type(mt) == "table" and type(mt.__name) == "string" and mt.__name or type(v)
end

local type_name = check.type_name

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

local function shown(v)
  if type(v) == "string" then
    return ("'%s'"):format(#v > 40 and v:sub(1, 40) .. "..." or v)
  end
  return type(v) == "number" and tostring(v) or type_name(v)
end

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
      bad(arg, name, ("option '%s': %s expected, got %s"):format(key, what, shown(value)))
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

function check.plain_function(v)
  return type(v) == "function", "function"
end

function check.callable(v)
  if type(v) == "function" then
    return true, "function"
  end
  local mt = getmetatable(v)
  return type(mt) == "table" and mt.__call ~= nil, "function"
end

return check
