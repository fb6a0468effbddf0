-- check.lua - argument checks of asynctask.socket, in the words of LuaSocket: arguments of methods are
-- counted without the object, and a wrong object is a "bad self". Each raises at whoever called.

local state_of = require("asynctask.core").socket.state

local check = {}

local raise = require("asynctask.check").raise
check.raise = raise

---Raises for argument `arg` of the method `name`.
---@param arg integer
---@param name string
---@param message string
function check.bad(arg, name, message)
  raise(("bad argument #%d to '%s' (%s)"):format(arg, name, message))
end

local bad = check.bad

local function wrong(arg, name, wanted, v)
  bad(arg, name, ("%s expected, got %s"):format(wanted, v == nil and "no value" or type(v)))
end

---The state of an object of this class, by its metatable.
---@param object any
---@param class table metatable
---@param name string of the method
---@return table state
function check.class(object, class, name)
  local state = state_of(object)
  if not state or getmetatable(object) ~= class then
    raise(("calling '%s' on bad self (%s expected)"):format(name, class.__name))
  end
  return state
end

---The state of an object of one of the classes of this group ("tcp{any}").
---@param object any
---@param group string
---@param name string
---@return table state
function check.group(object, group, name)
  local state = state_of(object)
  if not state or not getmetatable(object)[group] then
    raise(("calling '%s' on bad self (%s expected)"):format(name, group))
  end
  return state
end

---@param v any
---@param arg integer
---@param name string
---@return string
function check.string(v, arg, name)
  if type(v) == "string" then
    return v
  elseif type(v) == "number" then
    return tostring(v)
  end
  return wrong(arg, name, "string", v)
end

---A string as C sees it: up to the first zero byte.
---@param v any
---@param arg integer
---@param name string
---@return string
function check.text(v, arg, name)
  if type(v) == "number" then
    return tostring(v)
  elseif type(v) ~= "string" then
    wrong(arg, name, "string", v)
  end
  return (v:match("^[^\0]*"))
end

---@param v any
---@param arg integer
---@param name string
---@param default? number for nil
---@return number
function check.number(v, arg, name, default)
  if v == nil and default then
    return default
  end
  local n = tonumber(v)
  if n == nil or type(v) ~= "number" and type(v) ~= "string" then
    wrong(arg, name, "number", v)
  end
  return n --[[@as number]]
end

---@param v any
---@param arg integer
---@param name string
---@param choices table<string, any>
---@param default string for nil
---@return any of the choices
function check.option(v, arg, name, choices, default)
  local text = v == nil and default or v
  if type(text) == "number" then
    text = tostring(text)
  elseif type(text) ~= "string" then
    wrong(arg, name, "string", v)
  end
  local choice = choices[text]
  if choice == nil then
    bad(arg, name, ("invalid option '%s'"):format(text))
  end
  return choice
end

return check
